// The CUDA augmentation kernel, run thread by thread, against the CPU's.
#include "kernels/augment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/philox.h"
#include "tests/simt/backend.h"

namespace retort::simt {
namespace {

using kernels::AugmentKind;
using kernels::AugmentParams;
using kernels::AugmentStep;
using kernels::Backend;
using kernels::ImageSize;

constexpr int kImages = 5;
const std::vector<std::int32_t> kIndices = {3, 0, 4, 4};

AugmentStep step(AugmentKind kind, std::vector<float> low = {}, std::vector<float> high = {}) {
  AugmentStep s;
  s.kind = kind;
  std::copy(low.begin(), low.end(), s.low);
  std::copy(high.begin(), high.end(), s.high);
  return s;
}

AugmentStep sized(AugmentStep s, int height, int width, int padding = 0) {
  s.height = height;
  s.width = width;
  s.padding = padding;
  return s;
}

AugmentParams params_of(const std::vector<AugmentStep>& steps) {
  AugmentParams params;
  params.seed = 1234567890123;
  for (AugmentStep s : steps) {
    for (int i = 0; i < params.step_count; ++i) s.occurrence += params.steps[i].kind == s.kind ? 1 : 0;
    params.steps[params.step_count++] = s;
  }
  for (int c = 0; c < 3; ++c) {
    params.mean[c] = 0.4 + 0.05 * c;
    params.std[c] = 0.2 + 0.02 * c;
  }
  return params;
}

// The backend's result for kIndices in epoch 5, in memory of the backend, converted to f64.
std::vector<double> result_of(Backend& backend, const AugmentParams& params, ImageSize size, DType dtype) {
  std::vector<std::uint8_t> images(static_cast<std::size_t>(kImages * size.height * size.width * 3));
  for (std::size_t i = 0; i < images.size(); ++i) {
    images[i] = static_cast<std::uint8_t>(random_block(1, 2, 3, 4, static_cast<std::uint32_t>(i / 4)).v[i % 4]);
    if (i % 7 == 0) images[i] = images[i - i % 3];  // equal channels now and then
  }
  const std::int32_t epoch = 5;
  const ImageSize out_size = kernels::augmented_size(params, size);
  const auto on_device = [&](const void* host, DType type, const Shape& shape) {
    View view{nullptr, type, shape};
    view.data = backend.allocate(view.bytes(), {});
    if (host != nullptr) backend.copy_from_host(host, view, {});
    return view;
  };
  const auto batch = std::ssize(kIndices);
  const View in = on_device(images.data(), DType::u8, {kImages, size.height, size.width, 3});
  const View indices = on_device(kIndices.data(), DType::i32, {batch});
  const View epochs = on_device(&epoch, DType::i32, {1});
  const View out = on_device(nullptr, dtype, {batch, out_size.height, out_size.width, 3});
  backend.augment(params, in, indices, epochs, out, {});
  std::vector<std::uint8_t> bytes(out.bytes());
  backend.copy_to_host(out, bytes.data(), {});
  for (const View& view : {in, indices, epochs, out}) backend.deallocate(view.data, view.bytes(), {});

  std::vector<double> values(static_cast<std::size_t>(out.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint8_t* at = bytes.data() + i * size_of(dtype);
    if (dtype == DType::f64) {
      std::memcpy(&values[i], at, sizeof(double));
    } else if (dtype == DType::f32) {
      float value;
      std::memcpy(&value, at, sizeof value);
      values[i] = static_cast<double>(value);
    } else {
      bf16 value;
      std::memcpy(&value, at, sizeof value);
      values[i] = static_cast<double>(static_cast<float>(value));
    }
  }
  return values;
}

struct Case {
  const char* name;
  std::vector<AugmentStep> steps;
  ImageSize size = {32, 32};
};

std::vector<Case> cases() {
  const AugmentStep flip = step(AugmentKind::flip), vertical_flip = step(AugmentKind::vertical_flip);
  const AugmentStep crop = sized(step(AugmentKind::crop), 0, 0, 4);
  const AugmentStep jitter = step(AugmentKind::color_jitter, {0.8f, 0.8f, 0.8f, -0.1f}, {1.2f, 1.2f, 1.2f, 0.1f});
  const AugmentStep contrast = step(AugmentKind::color_jitter, {1, 0.2f, 1, 0}, {1, 1.8f, 1, 0});
  const AugmentStep rotation = step(AugmentKind::rotation, {-180}, {180});
  const AugmentStep box = step(AugmentKind::resized_crop, {0.5f, 0.75f}, {1, 1.3333f});
  return {{"nothing", {}},
          {"flip and crops", {flip, crop, vertical_flip, crop}},
          {"colour jitter", {jitter}},
          {"contrast twice", {contrast, contrast}, {9, 5}},
          {"rotation", {rotation}},
          {"resized crop", {box}},
          {"resized crops, reducing and enlarging", {sized(box, 11, 13), flip, sized(box, 40, 24)}, {21, 37}},
          {"moves between", {jitter, flip, crop, vertical_flip, rotation, sized(crop, 20, 18, 1)}, {19, 23}},
          {"all", {flip, crop, jitter, rotation, box}},
          {"all, more than 256 columns", {flip, crop, jitter, rotation, box}, {3, 300}}};
}

class SimtAugment : public testing::TestWithParam<LaneOrder> {
 protected:
  void SetUp() override { set_lane_order(GetParam()); }
  void TearDown() override { set_lane_order(LaneOrder::forward); }
};

TEST_P(SimtAugment, EqualsTheCpu) {
  SimtBackend simt;
  Backend& cpu = kernels::backend({});
  for (const Case& c : cases()) {
    const AugmentParams params = params_of(c.steps);
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const auto expected = result_of(cpu, params, c.size, dtype);
      const auto values = result_of(simt, params, c.size, dtype);
      ASSERT_EQ(values.size(), expected.size());
      // f64 does not fit shared memory at 32 x 32: both places of the buffers are tried.
      const double absolute = dtype == DType::f64 ? 5e-14 : 1e-5, relative = dtype == DType::bf16 ? 1.0 / 128 : 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_LE(std::fabs(values[i] - expected[i]), absolute + relative * std::fabs(expected[i]))
            << c.name << " in " << name_of(dtype) << ", element " << i << ": " << values[i] << " and " << expected[i];
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, SimtAugment, testing::ValuesIn(kLaneOrders),
                         [](const auto& order) { return name_of(order.param); });

}  // namespace
}  // namespace retort::simt
