// The backend where calls fail, each in turn, and where other threads work while one records: what was begun is ended,
// nothing is left, no error surfaces later, and the next call is right.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/handle.h"
#include "kernels/error.h"
#include "tests/cuda/backend_memory.h"
#include "tests/device/standin.h"
#include "tests/support/files.h"

namespace retort::kernels {
namespace {

using standin::fail_calls;
using test::error_of;
using testing::Each;
using testing::HasSubstr;

class FailingCalls : public testing::Test {
 protected:
  static constexpr std::int64_t kCount = 4096;

  using OwnStream = test::OwnStream;
  struct Array : test::DeviceArray {
    Array(Backend& backend, Stream stream, const Shape& shape = {kCount})
        : DeviceArray(backend, DType::f32, shape, stream) {}
  };

  // An exception in the midst leaves streams that nobody has joined.
  struct Settled {
    ~Settled() { cudaDeviceSynchronize(); }
  };

  void SetUp() override {
    standin::set_order("late");
    cudaGetLastError();
    before_ = standin::left();
  }
  void TearDown() override {
    standin::fail_no_calls();
    cudaDeviceSynchronize();
    EXPECT_EQ(standin::left(), before_);
  }

  // Something of all that a training step does; 66 in each element.
  static std::vector<float> work(Backend& backend) {
    const OwnStream main(backend), side(backend);
    const Array result(backend, main), x(backend, main, {2, 8, 8, 32}), w(backend, main, {32, 1, 1, 32}),
        y(backend, main, {2, 8, 8, 32}), flat(backend, main, {128, 32}), square(backend, main, {32, 32});
    const Settled settled;
    const std::vector<float> ones(kCount, 1.0f);
    backend.copy_from_host(ones.data(), x.view(), main);
    backend.fill(w.view(), 1.0, main);
    backend.fill(square.view(), 1.0, main);
    const auto step = [&] {
      backend.wait(side, main);
      {
        const Array scratch(backend, side);
        backend.scale(x.view(), 2.0, scratch.view(), side);
        backend.copy(scratch.view(), result.view(), side);
      }
      backend.conv2d(x.view(), w.view(), {}, {}, y.view(), main);
      backend.wait(main, side);
      View rows = y.view();
      rows.shape = {128, 32};
      backend.matmul(rows, false, square.view(), false, {}, Math::standard, flat.view(), main);
      rows = flat.view();
      rows.shape = {kCount};
      backend.scale(rows, 1.0 / 16, rows, main);
      backend.accumulate(rows, result.view(), main);
    };
    step();
    const auto graph = backend.capture(main, step);
    for (int i = 0; i < 2; ++i) graph->replay(main);
    return result.read();
  }

 private:
  standin::Left before_;
};

TEST_F(FailingCalls, EachInTurnIsOneLineAndLeavesNothing) {
  // Those that fail only where the device is lost, and whose error nobody would hear of: ends of handles and of scopes.
  const std::set<std::string> unheard = {"cudaEventDestroy",      "cudaGraphDestroy",
                                         "cudaGraphExecDestroy",  "cudaFreeHost",
                                         "cudaMemPoolDestroy",    "cudaStreamDestroy",
                                         "cudaDeviceSynchronize", "cudaEventSynchronize",
                                         "cudaStreamSynchronize", "cudaThreadExchangeStreamCaptureMode"};
  // What is not known to be recorded is not what the rules expect.
  const std::set<std::string> left_out = {"cudaStreamIsCapturing"};
  const auto before = standin::calls();
  std::vector<float> expected;
  {
    CudaBackend backend(0);
    expected = work(backend);
  }
  EXPECT_THAT(expected, Each(66.0f));
  for (const auto& [name, count] : standin::calls()) {
    if (left_out.count(name) != 0) continue;
    const auto known = before.find(name);
    const std::int64_t made = count - (known == before.end() ? 0 : known->second);
    for (std::int64_t n = 1; n <= std::min<std::int64_t>(made, 4); ++n) {
      SCOPED_TRACE(name + " " + std::to_string(n));
      const standin::Left left = standin::left();
      {
        std::unique_ptr<CudaBackend> backend;
        fail_calls(name, n);
        std::string error;
        try {
          backend = std::make_unique<CudaBackend>(0);
          EXPECT_EQ(work(*backend), expected);
        } catch (const Error& e) {
          error = e.what();
        }
        EXPECT_THAT(error, testing::Not(HasSubstr("\n")));
        standin::fail_no_calls();
        const cudaError_t last = cudaGetLastError();
        EXPECT_TRUE(last == cudaSuccess || unheard.count(name) != 0) << error;
        if (!backend) backend = std::make_unique<CudaBackend>(0);
        EXPECT_EQ(work(*backend), expected) << error;
      }
      cudaDeviceSynchronize();
      EXPECT_TRUE(standin::left() == left);
    }
  }
}

TEST_F(FailingCalls, OfAnAllocationIsTriedAgainButNotInARecording) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  fail_calls("cudaMallocFromPoolAsync", 1);
  {
    const Array array(backend, stream);
    backend.fill(array.view(), 3.0, stream);
    EXPECT_THAT(array.read(), Each(3.0f));
  }
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  fail_calls("cudaMallocFromPoolAsync", 1);
  EXPECT_THAT(error_of([&] { backend.capture(stream, [&] { const Array array(backend, stream); }); }),
              HasSubstr("out of memory"));
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  backend.capture(stream, [&] { const Array array(backend, stream); })->replay(stream);
}

// What is cached is given back first, so that memory in other pieces than before can be had.
TEST_F(FailingCalls, MemoryComesFromWhatIsCached) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  constexpr std::int64_t kPiece = 1 << 20;
  { const Array a(backend, stream, {kPiece}), b(backend, stream, {kPiece}); }
  backend.synchronize(stream);
  standin::set_memory(std::size_t{3} * kPiece * sizeof(float));
  { const Array both(backend, stream, {2 * kPiece + kPiece / 2}); }
  standin::set_memory(std::size_t{80} << 30);
}

TEST_F(FailingCalls, LeaveNoErrorForTheNext) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  fail_calls("cudaMallocFromPoolAsync", 1, 2);  // the second try as well
  EXPECT_THAT(error_of([&] { backend.allocate(64, stream); }), HasSubstr("out of memory"));
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  // What is not allowed in a recording ends it, too.
  EXPECT_THAT(error_of([&] { backend.capture(stream, [&] { backend.synchronize(stream); }); }),
              HasSubstr("cudaStreamSynchronize"));
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

class HostCopies : public FailingCalls {};

// Into pageable memory the copy itself would wait.
TEST_F(HostCopies, AreDoneIntoPinnedMemoryToo) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  const Array array(backend, stream);
  backend.fill(array.view(), 3.0, stream);
  PinnedHandle pinned;
  ASSERT_EQ(cudaHostAlloc(pinned.out(), array.view().bytes(), cudaHostAllocDefault), cudaSuccess);
  auto* const values = static_cast<float*>(pinned.get());
  std::fill_n(values, kCount, 0.0f);
  backend.copy_to_host(array.view(), values, stream);
  EXPECT_EQ(values[0], 3.0f);
  EXPECT_EQ(values[kCount - 1], 3.0f);
}

// More copies than there is pinned memory for, none of which has run when the next is asked for.
TEST_F(HostCopies, LeaveTheCallersMemoryFreeOnEveryStream) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  std::vector<std::unique_ptr<Array>> arrays;
  std::vector<float> host(kCount);
  for (int i = 0; i < 40; ++i) {
    arrays.push_back(std::make_unique<Array>(backend, stream));
    std::fill(host.begin(), host.end(), static_cast<float>(i));
    backend.copy_from_host(host.data(), arrays.back()->view(), stream);
  }
  for (std::size_t i = 0; i < arrays.size(); ++i) EXPECT_THAT(arrays[i]->read(), Each(static_cast<float>(i)));
}

class WhileOneRecords : public FailingCalls {};

TEST_F(WhileOneRecords, AnotherThreadAllocatesCopiesAndWaits) {
  CudaBackend backend(0);
  const OwnStream stream(backend), other(backend);
  const Array result(backend, stream), early(backend, other);
  auto freed = std::make_unique<Array>(backend, other);
  backend.fill(freed->view(), 1.0, other);
  std::unique_ptr<Array> kept;
  const auto graph = backend.capture(stream, [&] {
    const Array scratch(backend, stream);
    backend.fill(scratch.view(), 2.0, stream);
    std::thread([&] {
      kept = std::make_unique<Array>(backend, other);
      const std::vector<float> fives(kCount, 5.0f);
      for (int i = 0; i < 20; ++i)
        backend.copy_from_host(fives.data(), kept->view(), other);  // takes new pinned memory
      EXPECT_THAT(kept->read(), Each(5.0f));
      backend.fill(early.view(), 7.0, {});  // on the null stream
      backend.synchronize({});
      const OwnStream late(backend);
      backend.synchronize(late);
      freed.reset();
    }).join();
    backend.scale(scratch.view(), 3.0, result.view(), stream);
  });
  graph->replay(stream);
  EXPECT_THAT(result.read(), Each(6.0f));
  EXPECT_THAT(kept->read(), Each(5.0f));
  EXPECT_THAT(early.read(), Each(7.0f));
}

TEST_F(WhileOneRecords, PiecesMayBeLargerThanASlabAndOfAnyLength) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  const Array result(backend, stream);
  const auto graph = backend.capture(stream, [&] {
    const Array large(backend, stream, {(std::int64_t{5} << 20) + 1}), small(backend, stream);
    backend.fill(large.view(), 4.0, stream);
    View part = large.view();
    part.shape = {kCount};
    part.data = static_cast<float*>(part.data) + (std::int64_t{5} << 20) + 1 - kCount;
    backend.fill(small.view(), 1.0, stream);
    backend.add(part, small.view(), result.view(), stream);
  });
  graph->replay(stream);
  EXPECT_THAT(result.read(), Each(5.0f));
}

TEST_F(WhileOneRecords, HostCopiesAreRefused) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  const Array array(backend, stream);
  std::vector<float> host(kCount);
  const auto recorded = [&](const auto& f) { return error_of([&] { backend.capture(stream, f); }); };
  EXPECT_THAT(recorded([&] { backend.copy_from_host(host.data(), array.view(), stream); }),
              HasSubstr("copy_from_host cannot be recorded"));
  EXPECT_THAT(recorded([&] { backend.copy_to_host(array.view(), host.data(), stream); }),
              HasSubstr("copy_to_host cannot be recorded"));
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(WhileOneRecords, MemoryFromBeforeIsFreedOnItsStreamBehindItsLastUse) {
  CudaBackend backend(0);
  const OwnStream stream(backend);
  const Array result(backend, stream);
  auto early = std::make_unique<Array>(backend, stream);
  backend.fill(early->view(), 2.0, stream);
  backend.copy(early->view(), result.view(), stream);
  const auto graph = backend.capture(stream, [&] { early.reset(); });
  const Array next(backend, stream);  // may lie there
  backend.fill(next.view(), 9.0, stream);
  EXPECT_THAT(result.read(), Each(2.0f));
}

}  // namespace
}  // namespace retort::kernels
