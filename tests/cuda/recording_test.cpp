// Memory of recordings on a device: graphs share it and take turns, streams of one do not share what runs at once; and
// what a recording keeps, however often. Needs a device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/error.h"
#include "tests/cuda/backend_memory.h"
#include "tests/support/files.h"

namespace retort::kernels {
namespace {

using test::error_of;
using testing::HasSubstr;

class CudaRecordingTest : public testing::Test {
 protected:
  static constexpr std::int64_t kCount = 1 << 18;

  void SetUp() override {
    if (built_in_cuda_provider().device_count() == 0) GTEST_SKIP() << built_in_cuda_provider().why_unavailable();
    backend_ = std::make_unique<CudaBackend>(0);
    main_ = backend_->create_stream();
    side_ = backend_->create_stream();
  }
  void TearDown() override {
    if (!backend_) return;
    for (const Stream stream : {main_, side_}) {
      backend_->synchronize(stream);
      backend_->destroy_stream(stream);
    }
  }

  struct Array : test::DeviceArray {
    Array(Backend& backend, Stream stream) : DeviceArray(backend, DType::f32, {kCount}, stream) {}
  };

  // to = factor² one, by way of memory of the recording's own.
  void times(double factor, const Array& one, const Array& to, Stream stream) {
    const Array scaled(*backend_, stream);
    backend_->scale(one.view(), factor, scaled.view(), stream);
    backend_->scale(scaled.view(), factor, to.view(), stream);
  }

  void expect_all(const Array& array, float value, Stream stream) {
    std::vector<float> values(static_cast<std::size_t>(kCount));
    backend_->copy_to_host(array.view(), values.data(), stream);
    EXPECT_THAT(values, testing::Each(value));
  }

  std::unique_ptr<CudaBackend> backend_;
  Stream main_, side_;
};

TEST_F(CudaRecordingTest, GraphsShareTheirMemoryAndTakeTurns) {
  const std::size_t empty = backend_->memory_stats().active_bytes;
  {
    const Array a(*backend_, main_), b(*backend_, side_), one(*backend_, main_);
    backend_->fill(one.view(), 1.0, main_);
    backend_->synchronize(main_);
    const std::size_t before = backend_->memory_stats().active_bytes;
    const auto first = backend_->capture(main_, [&] { times(2.0, one, a, main_); });
    const std::size_t with_one = backend_->memory_stats().active_bytes;
    EXPECT_GE(with_one, before + kCount * sizeof(float));
    const auto second = backend_->capture(side_, [&] { times(3.0, one, b, side_); });
    EXPECT_EQ(backend_->memory_stats().active_bytes, with_one);
    for (int i = 0; i < 4; ++i) {  // nothing but the graphs' memory puts the two streams in an order
      first->replay(main_);
      second->replay(side_);
    }
    expect_all(a, 4, main_);
    expect_all(b, 9, side_);
    backend_->synchronize(side_);
  }
  backend_->release_cached();
  EXPECT_EQ(backend_->memory_stats().active_bytes, empty);
}

TEST_F(CudaRecordingTest, AGraphMayGoWhileItsLastReplayIsQueued) {
  const Array a(*backend_, main_), one(*backend_, main_);
  backend_->fill(one.view(), 1.0, main_);
  backend_->capture(main_, [&] { times(3.0, one, a, main_); })->replay(main_);
  const Array eager(*backend_, side_);  // may lie where the recording's memory lay
  backend_->fill(eager.view(), 5.0, side_);
  expect_all(a, 9, main_);
  expect_all(eager, 5, side_);
}

TEST_F(CudaRecordingTest, StreamsDoNotShareWhatRunsAtOnce) {
  const Array one(*backend_, main_), left(*backend_, main_), right(*backend_, main_);
  backend_->fill(one.view(), 1.0, main_);
  const auto graph = backend_->capture(main_, [&] {
    times(7.0, one, left, main_);
    backend_->wait(side_, main_);  // the block that main has freed is the side's from here on, too
    times(3.0, one, right, side_);
    backend_->wait(side_, main_);  // which does not let main have what the side has freed
    {
      const Array two(*backend_, main_), three(*backend_, main_);
      backend_->scale(one.view(), 2.0, two.view(), main_);
      backend_->scale(one.view(), 3.0, three.view(), main_);
      backend_->add(two.view(), three.view(), left.view(), main_);
    }
    backend_->wait(main_, side_);
    backend_->add(left.view(), right.view(), left.view(), main_);
    times(5.0, one, right, main_);
  });
  for (int i = 0; i < 3; ++i) graph->replay(main_);
  expect_all(left, 14, main_);
  expect_all(right, 25, main_);
}

TEST_F(CudaRecordingTest, WhatIsKeptIsRefusedAgainAndAgain) {
  const Array a(*backend_, main_), one(*backend_, main_);
  backend_->fill(one.view(), 1.0, main_);
  const auto graph = backend_->capture(main_, [&] { times(2.0, one, a, main_); });  // keeps the slabs alive
  for (int i = 0; i < 3; ++i) {
    void* kept = nullptr;
    EXPECT_THAT(error_of([&] { backend_->capture(main_, [&] { kept = backend_->allocate(1000, main_); }); }),
                HasSubstr("kept 1000 bytes"));
    // The next recording may get the same place, and frees it.
    backend_->capture(main_, [&] { times(2.0, one, a, main_); })->replay(main_);
    backend_->deallocate(kept, 1000, main_);
  }
  graph->replay(main_);
  expect_all(a, 4, main_);
}

}  // namespace
}  // namespace retort::kernels
