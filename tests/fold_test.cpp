// Folded models (Model::fold) against the same models unfolded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "engine/autograd.h"
#include "models/model.h"
#include "tests/support/files.h"

namespace retort {
namespace {

void fill_uniform(const Tensor& t, double low, double high, std::mt19937& generator) {
  std::uniform_real_distribution<double> uniform(low, high);
  std::vector<double> values(static_cast<std::size_t>(t.numel()));
  for (double& value : values) value = uniform(generator);
  t.copy_from(Tensor::from(values, t.shape()).to(t.dtype()));
}

// With the normalisations as training might leave them.
std::unique_ptr<Model> build(const ModelSpec& spec, DType dtype) {
  auto model = make_model(spec);
  ParameterStore& store = model->parameters();
  store.materialize({}, dtype, 3);
  std::mt19937 generator(5);
  for (const auto& p : store.parameters()) {
    if (p->kind == ParameterKind::norm_scale) fill_uniform(p->value, 0.4, 1.0, generator);
    if (p->kind == ParameterKind::norm_shift) fill_uniform(p->value, -0.4, 0.4, generator);
  }
  for (const auto& b : store.buffers()) {
    if (b->name.ends_with("running_mean")) fill_uniform(b->value, -0.3, 0.3, generator);
    if (b->name.ends_with("running_var")) fill_uniform(b->value, 0.5, 2.0, generator);
  }
  return model;
}

Tensor images(std::int64_t count, int size, DType dtype) {
  const Shape shape{count, size, size, 3};
  const Tensor x = Tensor::zeros(shape, DType::f64, {});
  std::mt19937 generator(7);
  fill_uniform(x, -2.0, 2.0, generator);
  return x.to(dtype);
}

// The largest difference relative to the largest value.
double scaled_error(const Tensor& got, const Tensor& want) {
  const auto a = got.to_doubles(), b = want.to_doubles();
  double error = 0.0, scale = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    error = std::max(error, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return error / scale;
}

struct Network {
  const char* name;
  ModelSpec spec;
  int size;
};

class Fold : public testing::TestWithParam<Network> {
 protected:
  static void expect_same(DType dtype, double tolerance) {
    const auto model = build(GetParam().spec, dtype);
    const Tensor x = images(2, GetParam().size, dtype);
    const auto names = model->tap_names();
    const TapNames taps(names.begin(), names.end());
    const ModelOutput want = [&] {
      const autograd::NoGradGuard no_grad;
      return model->forward(x, {}, taps);
    }();
    model->fold();
    // Nothing is recorded, with gradients on: nothing asks for any.
    const ModelOutput with_taps = model->forward(x, {}, taps), without = model->forward(x, {});
    EXPECT_FALSE(with_taps.logits.requires_grad());
    EXPECT_LE(scaled_error(with_taps.logits, want.logits), tolerance);
    EXPECT_LE(scaled_error(without.logits, want.logits), tolerance);
    EXPECT_EQ(with_taps.taps.size(), names.size());
    for (const auto& [name, tap] : with_taps.taps) {
      EXPECT_EQ(tap.shape(), want.taps.at(name).shape()) << name;
      EXPECT_LE(scaled_error(tap, want.taps.at(name)), tolerance) << name;
    }
  }
};

TEST_P(Fold, MatchesTheUnfoldedModelInF64) {
  expect_same(DType::f64, 1e-10);
}
TEST_P(Fold, MatchesTheUnfoldedModelInF32) {
  expect_same(DType::f32, 1e-4);
}
// Each of the two rounds in other places; the bound is a few roundings (2^-8) of each of many layers.
TEST_P(Fold, MatchesTheUnfoldedModelInBf16) {
  expect_same(DType::bf16, 6e-2);
}

INSTANTIATE_TEST_SUITE_P(Networks, Fold,
                         testing::Values(Network{"resnet8x4", {.arch = "resnet8x4", .classes = 100}, 32},
                                         Network{"resnet20_pad", {.arch = "resnet20", .shortcut = "pad"}, 32},
                                         Network{"resnet18", {.arch = "resnet18"}, 16},
                                         Network{"resnet18_imagenet", {.arch = "resnet18", .stem = "imagenet"}, 48},
                                         Network{"resnet50", {.arch = "resnet50"}, 16}),
                         [](const auto& test) { return test.param.name; });

TEST(FoldedModel, IsForInferenceOnly) {
  const auto model = build({.arch = "resnet8"}, DType::f32);
  EXPECT_FALSE(model->folded());
  model->fold();
  EXPECT_TRUE(model->folded());
  for (const auto& p : model->parameters().parameters()) {
    EXPECT_TRUE(p->frozen) << p->name;
    EXPECT_FALSE(p->data.requires_grad()) << p->name;
  }
  Tensor x = images(2, 32, DType::f32);
  ForwardMode training;
  training.training = true;
  EXPECT_THAT(test::error_of([&] { model->forward(x, training); }),
              testing::HasSubstr("the model is folded, for inference only"));
  EXPECT_THAT(test::error_of([&] { model->fold(); }), testing::HasSubstr("a second time"));
  x.set_requires_grad();
  EXPECT_THAT(test::error_of([&] { model->forward(x, {}); }), testing::HasSubstr("conv2d_inference"));
}

TEST(FoldedModel, ShowsWhatIsNotFinite) {
  const auto model = build({.arch = "resnet8"}, DType::f32);
  for (const auto& b : model->parameters().buffers()) {
    if (b->name == "layer2.0.bn1.running_var") b->value.fill(std::numeric_limits<double>::quiet_NaN());
  }
  EXPECT_THAT(test::error_of([&] { model->fold(); }), testing::HasSubstr("layer2.0.conv1.weight"));
}

TEST(FoldedModel, NeedsParameters) {
  EXPECT_THAT(test::error_of([] { make_model({.arch = "resnet8"})->fold(); }),
              testing::HasSubstr("before materialize()"));
}

}  // namespace
}  // namespace retort
