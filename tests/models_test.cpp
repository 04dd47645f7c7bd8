#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/autograd.h"
#include "models/model.h"
#include "tests/support/files.h"

namespace retort {
namespace {

std::unique_ptr<Model> build(const std::string& arch, std::int64_t classes, const std::string& stem = "cifar",
                             const std::string& shortcut = "projection") {
  return make_model({.arch = arch, .classes = classes, .stem = stem, .shortcut = shortcut});
}

std::vector<std::string> parameter_names(const std::string& arch) {
  const auto model = build(arch, 10);
  std::vector<std::string> names;
  for (const auto& p : model->parameters().parameters()) names.push_back(p->name);
  return names;
}

struct Count {
  const char* arch;
  std::int64_t classes;
  const char* stem;
  std::int64_t parameters;
};

// He et al. 2016, torchvision and the distillation papers.
TEST(ResNet, ParameterCountsAreThePublishedOnes) {
  const std::vector<Count> counts{
      {"resnet10", 10, "cifar", 4903242},       {"resnet10", 100, "cifar", 4949412},
      {"resnet18", 10, "cifar", 11173962},      {"resnet18", 100, "cifar", 11220132},
      {"resnet34", 10, "cifar", 21282122},      {"resnet34", 100, "cifar", 21328292},
      {"resnet50", 10, "cifar", 23520842},      {"resnet50", 100, "cifar", 23705252},
      {"resnet101", 10, "cifar", 42512970},     {"resnet101", 100, "cifar", 42697380},
      {"resnet152", 10, "cifar", 58156618},     {"resnet152", 100, "cifar", 58341028},
      {"resnet50", 2, "imagenet", 23512130},    {"resnet18", 2, "imagenet", 11177538},
      {"resnet18", 11, "imagenet", 11182155},   {"resnet18", 1000, "imagenet", 11689512},
      {"resnet50", 1000, "imagenet", 25557032}, {"resnet8", 100, "cifar", 83892},
      {"resnet14", 100, "cifar", 181108},       {"resnet20", 100, "cifar", 278324},
      {"resnet32", 100, "cifar", 472756},       {"resnet44", 100, "cifar", 667188},
      {"resnet56", 100, "cifar", 861620},       {"resnet110", 100, "cifar", 1736564},
      {"resnet8x4", 100, "cifar", 1233540},     {"resnet32x4", 100, "cifar", 7433860},
  };
  for (const Count& c : counts) {
    EXPECT_EQ(build(c.arch, c.classes, c.stem)->parameters().parameter_count(), c.parameters)
        << c.arch << ", " << c.classes << " classes, " << c.stem;
  }
  // He's option A adds no parameters: the paper's 0.27 M for resnet20.
  EXPECT_EQ(build("resnet20", 10, "cifar", "pad")->parameters().parameter_count(), 269722);
}

TEST(ResNet, NamesAreTorchvisions) {
  const std::vector<std::string> names = parameter_names("resnet18");
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  for (const char* name :
       {"conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.bias", "layer4.1.bn2.weight", "fc.weight", "fc.bias"}) {
    EXPECT_TRUE(has(name)) << name;
  }
  EXPECT_FALSE(has("layer1.0.downsample.0.weight"));
  const std::vector<std::string> bottleneck = parameter_names("resnet50");
  EXPECT_NE(std::find(bottleneck.begin(), bottleneck.end(), "layer1.0.conv3.weight"), bottleneck.end());
  EXPECT_NE(std::find(bottleneck.begin(), bottleneck.end(), "layer1.0.downsample.0.weight"), bottleneck.end());
}

TEST(ResNet, TapsHaveTheirShapesAndPreTapsChangeNothing) {
  auto model = build("resnet8", 10);
  model->parameters().materialize({}, DType::f32, 3);
  const autograd::NoGradGuard no_grad;
  std::vector<float> pixels(2 * 32 * 32 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(i % 17) / 17.0f - 0.4f;
  const Tensor x = Tensor::from(pixels, {2, 32, 32, 3});
  const auto names = model->tap_names();
  const ModelOutput all = model->forward(x, {}, TapNames(names.begin(), names.end()));
  const ModelOutput none = model->forward(x, {});
  EXPECT_TRUE(none.taps.empty());
  EXPECT_EQ(all.taps.at("stem").shape(), (Shape{2, 32, 32, 16}));
  EXPECT_EQ(all.taps.at("layer1").shape(), (Shape{2, 32, 32, 16}));
  EXPECT_EQ(all.taps.at("layer2").shape(), (Shape{2, 16, 16, 32}));
  EXPECT_EQ(all.taps.at("layer3").shape(), (Shape{2, 8, 8, 64}));
  EXPECT_EQ(all.taps.at("pooled").shape(), (Shape{2, 64}));
  const auto expected = none.logits.to_host<float>(), actual = all.logits.to_host<float>();
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_FLOAT_EQ(actual[i], expected[i]);
  const auto pre = all.taps.at("layer3.pre").to_host<float>(), post = all.taps.at("layer3").to_host<float>();
  bool some_negative = false;
  for (std::size_t i = 0; i < pre.size(); ++i) {
    EXPECT_EQ(post[i], std::max(pre[i], 0.0f));
    some_negative |= pre[i] < 0;
  }
  EXPECT_TRUE(some_negative);
}

TEST(ResNet, PaddedShortcutSubsamplesAndPadsBothSides) {
  // With all weights zero but the batch norm's, a block passes its shortcut through a ReLU.
  auto model = build("resnet8", 10, "cifar", "pad");
  model->parameters().materialize({}, DType::f32, 3);
  for (const auto& p : model->parameters().parameters()) {
    if (p->name.starts_with("layer2") && p->kind == ParameterKind::conv_weight) p->value.fill(0);
  }
  const autograd::NoGradGuard no_grad;
  std::vector<float> pixels(32 * 32 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(i % 13) / 13.0f;
  const ModelOutput out = model->forward(Tensor::from(pixels, {1, 32, 32, 3}), {}, {"layer1", "layer2"});
  const auto in = out.taps.at("layer1").to_host<float>(), result = out.taps.at("layer2").to_host<float>();
  for (std::size_t y = 0; y < 16; ++y) {
    for (std::size_t x = 0; x < 16; ++x) {
      for (std::size_t c = 0; c < 32; ++c) {
        const float expected = c < 8 || c >= 24 ? 0.0f : in[((2 * y) * 32 + 2 * x) * 16 + c - 8];
        ASSERT_EQ(result[(y * 16 + x) * 32 + c], expected) << y << ' ' << x << ' ' << c;
      }
    }
  }
}

TEST(ResNet, MistakesAreNamed) {
  EXPECT_THAT(test::error_of([] { build("resnet21", 10); }), ::testing::HasSubstr("unknown arch \"resnet21\""));
  EXPECT_THAT(test::error_of([] { build("resnet20", 10, "imagenet"); }), ::testing::HasSubstr("imagenet"));
  EXPECT_THAT(test::error_of([] { build("resnet18", 10, "foo"); }), ::testing::HasSubstr("unknown stem \"foo\""));
  EXPECT_THAT(test::error_of([] { build("resnet18", 10, "cifar", "zero"); }), ::testing::HasSubstr("shortcut"));
  auto model = build("resnet8", 10);
  model->parameters().materialize({}, DType::f32, 0);
  const Tensor x = Tensor::zeros({1, 32, 32, 3}, DType::f32, {});
  EXPECT_THAT(test::error_of([&] { model->forward(x, {}, {"layer4"}); }), ::testing::HasSubstr("no tap \"layer4\""));
}

}  // namespace
}  // namespace retort
