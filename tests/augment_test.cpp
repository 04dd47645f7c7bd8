#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "data/augment_config.h"
#include "data/loader.h"
#include "data/random_stream.h"
#include "data/shapes.h"
#include "kernels/augment_math.h"
#include "tests/support/reference_augment.h"

namespace retort {
namespace {

using kernels::AugmentKind;
using kernels::AugmentParams;
using kernels::ImageSize;
using kernels::StepDraw;
using testing::AllOf;
using testing::HasSubstr;

using Steps = std::vector<AugmentStepConfig>;

// Half drawings (smooth areas, grey pixels, ties of channels), half noise; any size.
ImageSet some_images(int count, int height, int width) {
  ImageSet set;
  set.count = count;
  set.height = height;
  set.width = width;
  const ImageSet shapes = make_shapes(count, 1, 5).train;
  RandomStream random(1, kPurposeSynthetic, 9, 9);
  for (int i = 0; i < count; ++i) {
    set.labels.push_back(i % 10);
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) {
          int value =
              i % 2 == 0 ? shapes.image(i)[((y % 32) * 32 + x % 32) * 3 + c] : static_cast<int>(random.below(256));
          if (i % 4 == 3)
            value = value < 64 ? 0 : (value > 192 ? 255 : value / 64 * 64);  // equal channels, grey, black
          set.images.push_back(static_cast<std::uint8_t>(value));
        }
      }
    }
  }
  return set;
}

std::vector<std::int32_t> first(int n) {
  std::vector<std::int32_t> indices(static_cast<std::size_t>(n));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

Tensor augmented(const ImageSet& set, const AugmentParams& params, DType dtype,
                 const std::vector<std::int32_t>& indices, int epoch) {
  BatchBuffers batch(DeviceData::upload(set, {}), std::ssize(indices), dtype, params);
  batch.fill(indices, epoch);
  const auto labels = batch.labels.to_host<std::int32_t>();
  for (std::size_t i = 0; i < indices.size(); ++i) {
    EXPECT_EQ(labels[i], set.labels[static_cast<std::size_t>(indices[i])]);
  }
  return batch.input;
}

// Largest difference from the reference over 32 samples in each of two epochs.
double difference_from_reference(const Steps& steps, DType dtype, int height = 32, int width = 32) {
  const ImageSet set = some_images(32, height, width);
  const AugmentParams params = make_augment_params(steps, normalization_preset("imagenet"), 42, {height, width});
  double largest = 0;
  for (const int epoch : {0, 7}) {
    const Tensor out = augmented(set, params, dtype, first(32), epoch);
    const auto values = out.to(DType::f64).to_host<double>();
    std::size_t at = 0;
    for (int i = 0; i < 32; ++i) {
      const reference::Image expected = reference::augment(
          params, set.image(i), height, width, static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(i));
      check(expected.height == out.dim(1) && expected.width == out.dim(2), "sizes differ");
      for (const double value : expected.values) {
        const double difference = std::fabs(values[at++] - value);
        largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
      }
    }
  }
  return largest;
}

const std::map<std::string, Steps>& cases() {
  static const std::map<std::string, Steps> all = {
      {"nothing", {}},
      {"flip", {{"flip", {}}}},
      {"always flip", {{"flip", {{"p", {1}}}}}},
      {"vertical flip", {{"vertical_flip", {}}}},
      {"crop", {{"crop", {}}}},
      {"wide padding", {{"crop", {{"padding", {40}}}}}},
      {"smaller crop", {{"crop", {{"padding", {2}}, {"size", {24, 20}}}}}},
      {"flip, crop, flips",
       {{"flip", {}}, {"crop", {}}, {"flip", {}}, {"vertical_flip", {}}, {"crop", {{"padding", {1}}}}}},
      {"brightness", {{"color_jitter", {{"brightness", {0.8}}}}}},
      {"contrast", {{"color_jitter", {{"contrast", {0.8}}}}}},
      {"saturation", {{"color_jitter", {{"saturation", {0.5, 3}}}}}},
      {"hue", {{"color_jitter", {{"hue", {0.5}}}}}},
      {"colour jitter", {{"color_jitter", {}}}},
      {"rotation", {{"rotation", {}}}},
      {"any rotation", {{"rotation", {{"degrees", {180}}}}}},
      {"resized crop", {{"resized_crop", {}}}},
      {"resized crop, reducing", {{"resized_crop", {{"size", {15, 11}}, {"scale", {0.5, 1}}, {"ratio", {0.5, 2}}}}}},
      {"resized crop, enlarging",
       {{"resized_crop", {{"size", {50}}, {"scale", {0.08, 1}}, {"ratio", {0.75, 1.3333}}}}}},
      {"resized crop that never fits", {{"resized_crop", {{"ratio", {5, 6}}, {"scale", {0.9, 1}}}}}},
      {"geometry after colour", {{"color_jitter", {}}, {"flip", {}}, {"crop", {}}, {"vertical_flip", {}}}},
      {"all of recipe R0", {{"flip", {}}, {"crop", {}}, {"color_jitter", {}}, {"rotation", {}}, {"resized_crop", {}}}}};
  return all;
}

TEST(Augment, EqualsTheReferenceInF64) {
  for (const auto& [name, steps] : cases()) {
    EXPECT_LT(difference_from_reference(steps, DType::f64), 5e-14) << name;
    EXPECT_LT(difference_from_reference(steps, DType::f64, 21, 37), 5e-14) << name << ", 21 x 37";
  }
}

TEST(Augment, EqualsTheReferenceInF32) {
  for (const auto& [name, steps] : cases()) {
    EXPECT_LT(difference_from_reference(steps, DType::f32), 1e-5) << name;
    EXPECT_LT(difference_from_reference(steps, DType::f32, 37, 21), 1e-5) << name << ", 37 x 21";
  }
}

TEST(Augment, Bf16IsTheRoundedF32) {
  const ImageSet set = some_images(32, 32, 32);
  for (const auto& [name, steps] : cases()) {
    const AugmentParams params = make_augment_params(steps, normalization_preset("cifar10"), 3, {32, 32});
    const auto exact = augmented(set, params, DType::f32, first(32), 1).to_host<float>();
    const auto rounded = augmented(set, params, DType::bf16, first(32), 1).to_host<bf16>();
    ASSERT_EQ(exact.size(), rounded.size());
    for (std::size_t i = 0; i < exact.size(); ++i) ASSERT_EQ(rounded[i].bits, bf16(exact[i]).bits) << name;
  }
}

TEST(Augment, DependsOnSampleAndEpochAloneToTheLastBit) {
  const ImageSet set = some_images(64, 32, 32);
  const int threads = omp_get_max_threads();
  for (const auto& [name, steps] : cases()) {
    const AugmentParams params = make_augment_params(steps, normalization_preset("half"), 11, {32, 32});
    const auto whole = augmented(set, params, DType::f32, first(64), 3).to_host<float>();
    const std::size_t n = whole.size() / 64;
    const std::vector<std::int32_t> picked = {63, 5, 5, 0, 17};
    for (const int count : {1, 2, 3, 5}) {
      omp_set_num_threads(count);
      const auto some = augmented(set, params, DType::f32, picked, 3).to_host<float>();
      for (std::size_t i = 0; i < picked.size(); ++i) {
        const auto sample = static_cast<std::size_t>(picked[i]);
        ASSERT_TRUE(std::equal(whole.begin() + static_cast<std::ptrdiff_t>(sample * n),
                               whole.begin() + static_cast<std::ptrdiff_t>((sample + 1) * n),
                               some.begin() + static_cast<std::ptrdiff_t>(i * n)))
            << name << ", " << count << " threads, sample " << sample;
      }
    }
    omp_set_num_threads(threads);
    if (!steps.empty() && name != "always flip" && name != "resized crop that never fits") {
      EXPECT_NE(whole, augmented(set, params, DType::f32, first(64), 4).to_host<float>()) << name;
    }
  }
}

// One step's draws do not change with the others.
TEST(Augment, AddingAStepKeepsTheOthersDraws) {
  const AugmentParams alone = make_augment_params({{"crop", {}}}, {}, 5, {32, 32});
  const AugmentParams more = make_augment_params({{"flip", {}}, {"crop", {}}, {"crop", {}}}, {}, 5, {32, 32});
  int second_differs = 0;
  for (std::uint32_t sample = 0; sample < 100; ++sample) {
    const StepDraw a = draw_step(alone.steps[0], {32, 32}, 5, 2, sample);
    const StepDraw b = draw_step(more.steps[1], {32, 32}, 5, 2, sample);
    const StepDraw c = draw_step(more.steps[2], {32, 32}, 5, 2, sample);
    EXPECT_EQ(a.x0, b.x0);
    EXPECT_EQ(a.y0, b.y0);
    second_differs += a.x0 != c.x0 || a.y0 != c.y0 ? 1 : 0;
  }
  EXPECT_GT(second_differs, 80);
}

TEST(Augment, DrawsHaveTheirDistributions) {
  const AugmentParams params = make_augment_params(
      {{"flip", {{"p", {0.3}}}}, {"crop", {}}, {"color_jitter", {}}, {"rotation", {}}, {"resized_crop", {}}}, {}, 1,
      {32, 32});
  constexpr int kSamples = 48000;
  int flips = 0;
  std::map<int, int> left, top;
  std::map<std::array<std::uint8_t, 4>, int> orders;
  double hue = 0, hue_squares = 0, angle = 0, angle_squares = 0, area = 0;
  for (std::uint32_t i = 0; i < kSamples; ++i) {
    flips += draw_step(params.steps[0], {32, 32}, 1, 0, i).sx < 0 ? 1 : 0;
    const StepDraw crop = draw_step(params.steps[1], {32, 32}, 1, 0, i);
    ++left[crop.x0];
    ++top[crop.y0];
    const StepDraw jitter = draw_step(params.steps[2], {32, 32}, 1, 0, i);
    ++orders[{jitter.order[0], jitter.order[1], jitter.order[2], jitter.order[3]}];
    EXPECT_LE(std::fabs(jitter.factor[kernels::kBrightness] - 1), 0.2000001);
    EXPECT_LE(std::fabs(jitter.factor[kernels::kHue]), 0.1000001);
    hue += jitter.factor[kernels::kHue];
    hue_squares += jitter.factor[kernels::kHue] * jitter.factor[kernels::kHue];
    const StepDraw rotation = draw_step(params.steps[3], {32, 32}, 1, 0, i);
    const double degrees = std::atan2(rotation.sine, rotation.cosine) * 57.29577951308232;
    EXPECT_LE(std::fabs(degrees), 10.000001);
    angle += degrees;
    angle_squares += degrees * degrees;
    const StepDraw box = draw_step(params.steps[4], {32, 32}, 1, 0, i);
    EXPECT_TRUE(box.top >= 0 && box.left >= 0 && box.top + box.box_h <= 32 && box.left + box.box_w <= 32);
    area += box.box_h * box.box_w / 1024.0 / kSamples;
  }
  // Within five standard deviations.
  EXPECT_NEAR(flips, 0.3 * kSamples, 5 * std::sqrt(0.21 * kSamples));
  ASSERT_EQ(left.size(), 9u);
  ASSERT_EQ(top.size(), 9u);
  EXPECT_EQ(left.begin()->first, -4);
  for (const auto& counts : {left, top}) {
    for (const auto& [offset, count] : counts)
      EXPECT_NEAR(count, kSamples / 9.0, 5 * std::sqrt(kSamples / 9.0)) << offset;
  }
  ASSERT_EQ(orders.size(), 24u);
  for (const auto& [order, count] : orders) EXPECT_NEAR(count, kSamples / 24.0, 5 * std::sqrt(kSamples / 24.0));
  EXPECT_NEAR(hue / kSamples, 0, 5 * 0.1 / std::sqrt(3.0 * kSamples));
  EXPECT_NEAR(hue_squares / kSamples, 0.01 / 3, 1e-4);
  EXPECT_NEAR(angle / kSamples, 0, 5 * 10 / std::sqrt(3.0 * kSamples));
  EXPECT_NEAR(angle_squares / kSamples, 100.0 / 3, 1);
  EXPECT_NEAR(area, 0.886, 0.01);  // boxes of more than the whole height or width are drawn again: below 0.9
}

TEST(Augment, KnownResults) {
  ImageSet set;
  set.count = 1;
  set.height = 1;
  set.width = 2;
  set.images = {255, 0, 51, 0, 102, 204};
  set.labels = {0};
  const AugmentParams params = make_augment_params({{"flip", {{"p", {1}}}}}, normalization_preset("half"), 0, {1, 2});
  EXPECT_EQ(augmented(set, params, DType::f64, {0}, 0).to_host<double>(),
            (std::vector<double>{-1, -0.2, 0.6, 1, -1, -0.6}));
  const AugmentParams half_turn =
      make_augment_params({{"color_jitter", {{"hue", {0.5, 0.5}}}}}, normalization_preset("none"), 0, {1, 2});
  const auto turned = augmented(set, half_turn, DType::f64, {0}, 0).to_host<double>();
  const std::vector<double> expected = {0, 1, 0.8, 0.8, 0.4, 0};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(turned[i], expected[i], 1e-15);
}

std::string error_of(const Steps& steps, const ImageSize& size = {32, 32}) {
  try {
    make_augment_params(steps, {}, 0, size);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(AugmentConfig, ErrorsNameStepValueAndTheNearestName) {
  EXPECT_THAT(error_of({{"flop", {}}}), AllOf(HasSubstr("\"flop\""), HasSubstr("\"flip\"")));
  EXPECT_THAT(error_of({{"color_jiter", {}}}), HasSubstr("\"color_jitter\""));
  EXPECT_THAT(error_of({{"crop", {{"pading", {4}}}}}), AllOf(HasSubstr("\"pading\""), HasSubstr("\"padding\"")));
  EXPECT_THAT(error_of({{"flip", {{"p", {1.5}}}}}), HasSubstr("flip.p is 1.5"));
  EXPECT_THAT(error_of({{"flip", {{"p", {std::nan("")}}}}}), HasSubstr("flip.p is nan"));
  EXPECT_THAT(error_of({{"flip", {{"p", {0.1, 0.2}}}}}), HasSubstr("[0.1, 0.2]"));
  EXPECT_THAT(error_of({{"crop", {{"padding", {1.5}}}}}), HasSubstr("crop.padding is 1.5"));
  EXPECT_THAT(error_of({{"crop", {{"padding", {1}}, {"size", {40}}}}}), HasSubstr("40 x 40 from an image of 32 x 32"));
  EXPECT_THAT(error_of({{"color_jitter", {{"hue", {0.6}}}}}), HasSubstr("color_jitter.hue"));
  EXPECT_THAT(error_of({{"color_jitter", {{"contrast", {1.5, 0.5}}}}}), HasSubstr("[1.5, 0.5]"));
  EXPECT_THAT(error_of({{"resized_crop", {{"scale", {0, 1}}}}}), HasSubstr("resized_crop.scale is [0, 1]"));
  EXPECT_THAT(error_of({{"resized_crop", {{"ratio", {1}}}}}), HasSubstr("resized_crop.ratio is 1"));
  EXPECT_THAT(error_of(Steps(9, {"flip", {}})), HasSubstr("9 steps"));
  EXPECT_THAT(error_of({{"crop", {{"size", {20}}, {"padding", {0}}}}, {"crop", {{"size", {24}}, {"padding", {0}}}}}),
              HasSubstr("24 x 24 from an image of 20 x 20"));
  EXPECT_THROW(normalization_preset("imagnet"), Error);
}

TEST(BatchBuffers, RefuseWrongIndices) {
  const ImageSet set = some_images(8, 32, 32);
  BatchBuffers batch(DeviceData::upload(set, {}), 2, DType::f32, {});
  EXPECT_THROW(batch.fill(std::vector<std::int32_t>{0}, 0), Error);
  EXPECT_THROW(batch.fill(std::vector<std::int32_t>{0, 8}, 0), Error);
  EXPECT_THROW(batch.fill(std::vector<std::int32_t>{-1, 0}, 0), Error);
  EXPECT_NO_THROW(batch.fill(std::vector<std::int32_t>{7, 7}, 0));
  EXPECT_THROW(BatchBuffers(DeviceData::upload(set, {}), 2, DType::i32, {}), Error);
  EXPECT_THROW(BatchBuffers(DeviceData::upload(set, {}), 0, DType::f32, {}), Error);
}

TEST(BatchesOf, KeepTheLastPartialOne) {
  const std::vector<std::int32_t> order = first(10);
  const auto batches = batches_of(order, 4);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[2].size(), 2u);
  EXPECT_EQ(batches[2][0], 8);
  EXPECT_EQ(batches_of(order, 4, true).size(), 2u);
  EXPECT_EQ(batches_of(order, 5).size(), 2u);
  EXPECT_TRUE(batches_of({}, 4).empty());
}

}  // namespace
}  // namespace retort
