// The CUDA backend itself: memory, copies, streams, recordings, library calls. All but the first test need a device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/direct_convolution.h"
#include "kernels/error.h"
#include "tests/cuda/backend_memory.h"
#include "tests/support/files.h"

namespace retort::kernels {
namespace {

using test::error_of;
using testing::HasSubstr;

TEST(CudaProviderTest, SaysInOneLineWhyThereIsNoDevice) {
  const CudaProvider provider = built_in_cuda_provider();
  if (provider.device_count() > 0) {
    EXPECT_EQ(provider.why_unavailable(), "");
    return;
  }
  EXPECT_THAT(provider.why_unavailable(),
              testing::AllOf(testing::Not(testing::IsEmpty()), testing::Not(HasSubstr("\n"))));
}

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (built_in_cuda_provider().device_count() == 0) GTEST_SKIP() << built_in_cuda_provider().why_unavailable();
    backend_ = std::make_unique<CudaBackend>(0);
  }

  using OwnStream = test::OwnStream;
  using Array = test::DeviceArray;

  std::vector<float> read(const Array& array, Stream stream = {}) { return array.read(stream); }

  std::unique_ptr<CudaBackend> backend_;
};

TEST_F(CudaBackendTest, DescribesTheDeviceInOneLine) {
  EXPECT_THAT(backend_->description(), testing::AllOf(HasSubstr("compute capability"), HasSubstr("cuDNN")));
  EXPECT_THAT(backend_->description(), testing::Not(HasSubstr("\n")));
}

TEST_F(CudaBackendTest, CopiesThereAndBackWhateverTheSize) {
  for (const std::int64_t count :
       {std::int64_t{1}, std::int64_t{131072}, std::int64_t{131073}, std::int64_t{3000017}}) {
    const Array array(*backend_, DType::f32, {count});
    std::vector<float> host(static_cast<std::size_t>(count));
    std::iota(host.begin(), host.end(), 0.0f);
    const std::vector<float> expected = host;
    backend_->copy_from_host(host.data(), array.view(), {});
    std::fill(host.begin(), host.end(), -1.0f);  // the caller's memory is free again at once
    EXPECT_EQ(read(array), expected) << count;
  }
}

TEST_F(CudaBackendTest, CountsMemory) {
  backend_->reset_peak();
  const MemoryStats before = backend_->memory_stats();
  {
    const Array array(*backend_, DType::f32, {1 << 20});
    EXPECT_GE(backend_->memory_stats().active_bytes, before.active_bytes + (4u << 20));
  }
  backend_->synchronize({});
  const MemoryStats after = backend_->memory_stats();
  EXPECT_EQ(after.active_bytes, before.active_bytes);
  EXPECT_GE(after.peak_bytes, before.active_bytes + (4u << 20));
  EXPECT_GE(after.cached_bytes, std::size_t{4} << 20);
  backend_->release_cached();
  EXPECT_EQ(backend_->memory_stats().cached_bytes, 0u);
}

TEST_F(CudaBackendTest, ExhaustedMemoryIsAnErrorAndNotTheEnd) {
  EXPECT_THAT(error_of([&] { backend_->allocate(std::size_t{1} << 50, {}); }),
              testing::AllOf(HasSubstr("out of memory"), HasSubstr("1125899906842624 bytes asked for"),
                             HasSubstr("active"), HasSubstr("cached")));
  const Array array(*backend_, DType::f32, {16});
  backend_->fill(array.view(), 3.0, {});
  EXPECT_EQ(read(array), std::vector<float>(16, 3.0f));
}

TEST_F(CudaBackendTest, ANewStreamBeginsAfterTheNullStream) {
  const Array array(*backend_, DType::f32, {1 << 22});
  for (int i = 0; i < 50; ++i) backend_->fill(array.view(), i, {});
  const OwnStream stream(*backend_);
  EXPECT_EQ(read(array, stream), std::vector<float>(1 << 22, 49.0f));
}

TEST_F(CudaBackendTest, ARecordingRunsWhenReplayed) {
  const OwnStream stream(*backend_);
  const Array counter(*backend_, DType::f32, {1000}, stream), one(*backend_, DType::f32, {1000}, stream);
  backend_->fill(counter.view(), 0.0, stream);
  backend_->fill(one.view(), 1.0, stream);
  const auto graph = backend_->capture(stream, [&] {
    const Array twice(*backend_, DType::f32, {1000}, stream);  // from the graph's memory
    backend_->add(one.view(), one.view(), twice.view(), stream);
    backend_->accumulate(twice.view(), counter.view(), stream);
  });
  EXPECT_EQ(read(counter, stream), std::vector<float>(1000, 0.0f));
  for (int i = 0; i < 3; ++i) graph->replay(stream);
  EXPECT_EQ(read(counter, stream), std::vector<float>(1000, 6.0f));
}

TEST_F(CudaBackendTest, ARecordingForksToASecondStreamAndJoins) {
  const OwnStream main(*backend_), teacher(*backend_);
  const Array input(*backend_, DType::f32, {1 << 20}, main), student(*backend_, DType::f32, {1 << 20}, main),
      target(*backend_, DType::f32, {1 << 20}, main), sum(*backend_, DType::f32, {1 << 20}, main);
  backend_->fill(input.view(), 1.0, main);
  const auto graph = backend_->capture(main, [&] {
    backend_->wait(teacher, main);
    {
      const Array scratch(*backend_, DType::f32, {1 << 20}, teacher);
      backend_->scale(input.view(), 10.0, scratch.view(), teacher);
      backend_->scale(scratch.view(), 10.0, target.view(), teacher);
    }
    backend_->scale(input.view(), 2.0, student.view(), main);
    backend_->wait(main, teacher);
    backend_->add(student.view(), target.view(), sum.view(), main);
    backend_->scale(sum.view(), 0.5, input.view(), main);
  });
  graph->replay(main);
  EXPECT_EQ(read(input, main), std::vector<float>(1 << 20, 51.0f));
  graph->replay(main);
  EXPECT_EQ(read(input, main), std::vector<float>(1 << 20, 51.0f * 51.0f));
}

// As metrics are read and data is loaded while a step is recorded.
TEST_F(CudaBackendTest, AnotherThreadUsesTheNullStreamDuringARecording) {
  const OwnStream stream(*backend_);
  const Array recorded(*backend_, DType::f32, {64}, stream), other(*backend_, DType::f32, {64});
  std::vector<float> seen;
  const auto graph = backend_->capture(stream, [&] {
    backend_->fill(recorded.view(), 5.0, stream);
    std::thread([&] {
      const std::vector<float> values(64, 3.0f);
      backend_->copy_from_host(values.data(), other.view(), {});
      seen = read(other);
    }).join();
  });
  EXPECT_EQ(seen, std::vector<float>(64, 3.0f));
  graph->replay(stream);
  EXPECT_EQ(read(recorded, stream), std::vector<float>(64, 5.0f));
}

TEST_F(CudaBackendTest, ARefusedRecordingLeavesTheStreamUsable) {
  const OwnStream stream(*backend_);
  const Array array(*backend_, DType::f32, {64}, stream);
  EXPECT_THAT(error_of([&] { backend_->capture({}, [] {}); }), HasSubstr("create_stream()"));
  EXPECT_THAT(error_of([&] { backend_->capture(stream, [] { fail("work: gives up"); }); }),
              HasSubstr("work: gives up"));
  void* kept = nullptr;
  EXPECT_THAT(error_of([&] { backend_->capture(stream, [&] { kept = backend_->allocate(1024, stream); }); }),
              HasSubstr("kept 1024 bytes"));
  backend_->deallocate(kept, 1024, stream);
  float host = 0;
  EXPECT_THAT(
      error_of([&] { backend_->capture(stream, [&] { backend_->copy_from_host(&host, array.view(), stream); }); }),
      HasSubstr("copy_from_host"));
  backend_->fill(array.view(), 7.0, stream);
  EXPECT_EQ(read(array, stream), std::vector<float>(64, 7.0f));
}

TEST_F(CudaBackendTest, MemoryFromBeforeARecordingMayBeFreedInside) {
  const OwnStream stream(*backend_);
  const Array result(*backend_, DType::f32, {64}, stream);
  const std::size_t before = backend_->memory_stats().active_bytes;
  auto* early = new Array(*backend_, DType::f32, {64}, stream);
  backend_->fill(early->view(), 2.0, stream);
  const auto graph = backend_->capture(stream, [&] {
    backend_->fill(result.view(), 5.0, stream);
    delete early;
  });
  graph->replay(stream);
  EXPECT_EQ(read(result, stream), std::vector<float>(64, 5.0f));
  EXPECT_EQ(backend_->memory_stats().active_bytes, before);
}

// Library convolutions against ours, each direction and precision; equal bits when repeated, in a recording too.
TEST_F(CudaBackendTest, ConvolutionsAgreeWithTheDirectKernelsAndRepeat) {
  const OwnStream stream(*backend_);
  const Shape x_shape{4, 9, 9, 16}, w_shape{32, 3, 3, 8};
  struct Precision {
    DType dtype;
    Math math;
    double tolerance;  // relative to the largest value
    int dilation = 1;
  };
  for (const Precision p : {Precision{DType::f64, Math::standard, 1e-14}, Precision{DType::f32, Math::strict, 2e-6},
                            Precision{DType::f32, Math::standard, 1e-5}, Precision{DType::f32, Math::tf32, 2e-3},
                            Precision{DType::bf16, Math::standard, 8e-3}, Precision{DType::f32, Math::strict, 2e-6, 2},
                            Precision{DType::bf16, Math::standard, 8e-3, 2}}) {
    const std::int64_t extent = p.dilation == 1 ? 5 : 4;
    const Shape y_shape{4, extent, extent, 32};
    const DType wide = accumulation_type(p.dtype);
    ConvParams params;
    params.stride_h = params.stride_w = 2;
    params.pad_h = params.pad_w = 1;
    params.dilation_h = params.dilation_w = p.dilation;
    params.groups = 2;
    params.math = p.math;
    const auto pattern = [&](const Shape& shape, DType dtype, int seed) {
      std::vector<float> values(static_cast<std::size_t>(shape.numel()));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i * 37 + seed));
      const Array plain(*backend_, DType::f32, shape, stream);
      backend_->copy_from_host(values.data(), plain.view(), stream);
      auto result = std::make_unique<Array>(*backend_, dtype, shape, stream);
      backend_->convert(plain.view(), result->view(), stream);
      return result;
    };
    const auto x = pattern(x_shape, p.dtype, 1), w = pattern(w_shape, p.dtype, 2), dy = pattern(y_shape, p.dtype, 3),
               bias = pattern({32}, wide, 4);
    const auto compare = [&](const Shape& shape, const auto& library, const auto& direct, const char* what) {
      const Array a(*backend_, p.dtype, shape, stream), b(*backend_, p.dtype, shape, stream);
      const auto bytes = [&](const Array& array) {
        std::vector<char> raw(array.view().bytes());
        backend_->copy_to_host(array.view(), raw.data(), stream);
        return raw;
      };
      const auto values = [&](const Array& array) {
        const Array plain(*backend_, DType::f64, shape, stream);
        backend_->convert(array.view(), plain.view(), stream);
        std::vector<double> result(static_cast<std::size_t>(shape.numel()));
        backend_->copy_to_host(plain.view(), result.data(), stream);
        return result;
      };
      library(a.view());
      const auto first = bytes(a);
      direct(b.view());
      const auto got = values(a), expected = values(b);
      double largest = 1;
      for (const double value : expected) largest = std::max(largest, std::abs(value));
      for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(got[i], expected[i], p.tolerance * largest) << what << " " << name_of(p.dtype) << " element " << i;
      }
      library(a.view());
      EXPECT_EQ(bytes(a), first) << what << ": not repeatable";
      const auto graph = backend_->capture(stream, [&] { library(a.view()); });
      backend_->fill(a.view(), 0.0, stream);
      graph->replay(stream);
      EXPECT_EQ(bytes(a), first) << what << ": replayed";
    };
    compare(
        y_shape, [&](View y) { backend_->conv2d(x->view(), w->view(), {bias->view()}, params, y, stream); },
        [&](View y) { direct_conv2d(x->view(), w->view(), {bias->view()}, params, y, stream); }, "forward");
    const ConvEpilogue epilogue{bias->view(), dy->view(), Activation::relu};
    compare(
        y_shape, [&](View y) { backend_->conv2d(x->view(), w->view(), epilogue, params, y, stream); },
        [&](View y) { direct_conv2d(x->view(), w->view(), epilogue, params, y, stream); }, "forward with epilogue");
    compare(
        x_shape, [&](View dx) { backend_->conv2d_backward_data(dy->view(), w->view(), params, dx, stream); },
        [&](View dx) { direct_conv2d_backward_data(dy->view(), w->view(), params, dx, stream); }, "backward_data");
    compare(
        w_shape, [&](View dw) { backend_->conv2d_backward_weights(x->view(), dy->view(), params, dw, stream); },
        [&](View dw) { direct_conv2d_backward_weights(x->view(), dy->view(), params, dw, stream); },
        "backward_weights");
  }
}

}  // namespace
}  // namespace retort::kernels
