// A convolution's gradient added to what is there, by the library: chosen by heuristics and measured, where trials must
// not add, too. Needs a device.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "kernels/cuda/cuda_backend.h"

namespace retort::kernels {
namespace {

class CudaConvolutionSumTest : public testing::Test {
 protected:
  void SetUp() override {
    if (built_in_cuda_provider().device_count() == 0) GTEST_SKIP() << built_in_cuda_provider().why_unavailable();
  }
};

// Small whole numbers: every sum is exact in all types.
std::vector<float> whole_numbers(std::int64_t count, int salt) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 7 + static_cast<std::size_t>(salt)) % 5) - 2;
  }
  return values;
}

void expect_sum(CudaBackend& backend, DType dtype, const ConvParams& params) {
  const Shape x{2, 6, 6, 8}, w{8, 3, 3, 8}, y{2, 6, 6, 8};
  std::vector<View> memory;
  const auto make = [&](const Shape& shape, DType type) {
    memory.push_back({nullptr, type, shape});
    memory.back().data = backend.allocate(memory.back().bytes(), {});
    return memory.back();
  };
  const auto filled = [&](const Shape& shape, int salt) {
    const View single = make(shape, DType::f32), view = make(shape, dtype);
    backend.copy_from_host(whole_numbers(shape.numel(), salt).data(), single, {});
    backend.convert(single, view, {});
    return view;
  };
  const View dy = filled(y, 1), weight = filled(w, 2), alone = make(x, dtype), sum = filled(x, 3), old = filled(x, 3);
  backend.conv2d_backward_data(dy, weight, params, alone, {});
  backend.add(alone, old, alone, {});
  backend.accumulate_conv2d_backward_data(dy, weight, params, sum, {});
  std::vector<std::vector<float>> results;
  for (const View& view : {alone, sum}) {
    const View single = make(x, DType::f32);
    backend.convert(view, single, {});
    backend.copy_to_host(single, results.emplace_back(static_cast<std::size_t>(x.numel())).data(), {});
  }
  EXPECT_EQ(results[0], results[1]) << name_of(dtype);
  for (const View& view : memory) backend.deallocate(view.data, view.bytes(), {});
}

void expect_sums() {
  CudaBackend backend(0);
  ConvParams params;
  params.pad_h = params.pad_w = 1;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) expect_sum(backend, dtype, params);
}

TEST_F(CudaConvolutionSumTest, IsTheGradientAndWhatWasThere) {
  expect_sums();
}

TEST_F(CudaConvolutionSumTest, TrialsLeaveTheOutputAlone) {
  const auto file = std::filesystem::path(testing::TempDir()) / "convolution_sum_plans";
  std::filesystem::remove(file);
  setenv("RETORT_CUDNN_PLANS", file.c_str(), 1);
  expect_sums();
  unsetenv("RETORT_CUDNN_PLANS");
  EXPECT_TRUE(std::filesystem::exists(file));
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace retort::kernels
