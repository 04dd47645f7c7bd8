// Classifiers from ONNX files: what is fused and what stays, taps, shapes that a graph computes, refusals.
#include "models/onnx_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "models/onnx/compiler.h"
#include "models/onnx/runner.h"
#include "tests/support/files.h"
#include "tests/support/onnx_builder.h"

namespace retort {
namespace {

using test::error_of;
using test::OnnxBuilder;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::vector<float> random_values(std::int64_t count, unsigned seed, float least = -1, float most = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(least, most);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = draw(engine);
  return values;
}

void convolution(OnnxBuilder& b, const std::string& x, const std::string& y, std::int64_t in, std::int64_t out,
                 std::int64_t kernel, unsigned seed) {
  b.weights(y + ".w", {out, in, kernel, kernel}, random_values(out * in * kernel * kernel, seed));
  b.weights(y + ".b", {out}, random_values(out, seed + 1));
  b.node("Conv", {x, y + ".w", y + ".b"}, {y}).list("pads", std::vector<std::int64_t>(4, kernel / 2));
}

void normalisation(OnnxBuilder& b, const std::string& x, const std::string& y, std::int64_t channels, unsigned seed) {
  b.weights(y + ".g", {channels}, random_values(channels, seed, 0.5F, 2));
  b.weights(y + ".b", {channels}, random_values(channels, seed + 1));
  b.weights(y + ".m", {channels}, random_values(channels, seed + 2));
  b.weights(y + ".v", {channels}, random_values(channels, seed + 3, 0.5F, 2));
  b.node("BatchNormalization", {x, y + ".g", y + ".b", y + ".m", y + ".v"}, {y});
}

// A residual block, a pool and a linear layer: as a ResNet ends.
OnnxBuilder residual_network(std::int64_t batch = -1) {
  OnnxBuilder b;
  b.input("image", {batch, 3, 8, 8});
  convolution(b, "image", "conv1", 3, 6, 3, 1);
  normalisation(b, "conv1", "norm1", 6, 3);
  b.node("Relu", {"norm1"}, {"relu1"});
  convolution(b, "relu1", "conv2", 6, 6, 3, 7);
  normalisation(b, "conv2", "norm2", 6, 9);
  b.node("Add", {"norm2", "relu1"}, {"sum"});
  b.node("Relu", {"sum"}, {"relu2"});
  b.node("MaxPool", {"relu2"}, {"pool"}).list("kernel_shape", {2, 2}).list("strides", {2, 2});
  b.node("GlobalAveragePool", {"pool"}, {"mean"});
  b.node("Flatten", {"mean"}, {"flat"});
  b.weights("fc.w", {5, 6}, random_values(30, 20));
  b.weights("fc.b", {5}, random_values(5, 21));
  b.node("Gemm", {"flat", "fc.w", "fc.b"}, {"fc"}).set("transB", std::int64_t{1});
  b.node("Softmax", {"fc"}, {"probabilities"});
  b.output("probabilities");
  return b;
}

std::unique_ptr<OnnxModel> model_of(const OnnxBuilder& b, OnnxModelOptions options = {}) {
  return std::make_unique<OnnxModel>(parse_onnx(b.bytes(), "m.onnx"), options);
}

Tensor images(std::int64_t n, std::int64_t size = 8) {
  return Tensor::from(random_values(n * size * size * 3, 99), {n, size, size, 3});
}

void expect_close(const Tensor& a, const Tensor& b, double tolerance) {
  ASSERT_EQ(a.shape(), b.shape());
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double largest = 1;
  for (const double v : y) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], tolerance * largest) << i;
}

template <typename S>
std::ptrdiff_t count_of(const onnx::Plan& plan) {
  return std::count_if(plan.steps.begin(), plan.steps.end(),
                       [](const onnx::Step& step) { return std::holds_alternative<S>(step); });
}

onnx::Plan plan_of(const OnnxBuilder& b, const Extents& dims, const std::vector<std::string>& wanted,
                   bool fuse = true) {
  const OnnxGraph graph = parse_onnx(b.bytes(), "m.onnx");
  onnx::Value x;
  x.dims = dims;
  x.strides = onnx::dense_strides(dims, onnx::kImageOrder);
  onnx::DerivedConstants derived;
  onnx::CompileOptions options;
  options.fuse = fuse;
  return onnx::compile(graph, {{"image", x}}, wanted, options, derived);
}

TEST(OnnxModel, FusesWhatNobodyAsksFor) {
  const OnnxBuilder b = residual_network();
  const onnx::Plan fused = plan_of(b, {2, 3, 8, 8}, {"fc"}), plain = plan_of(b, {2, 3, 8, 8}, {"fc"}, false);
  EXPECT_EQ(fused.steps.size(), 5U);  // two convolutions, two pools, the product
  EXPECT_EQ(count_of<onnx::CopyStep>(fused), 0);
  EXPECT_EQ(plain.steps.size(), 10U);
  EXPECT_EQ(count_of<onnx::NormalisationStep>(plan_of(b, {2, 3, 8, 8}, {"fc", "conv1"})), 1);
}

TEST(OnnxModel, FusedAndPlainAgree) {
  const OnnxBuilder b = residual_network();
  OnnxModelOptions exact, plain;
  exact.dtype = plain.dtype = DType::f64;
  plain.fuse = false;
  const Tensor x = images(3);
  const ModelOutput fused = model_of(b, exact)->forward(x, {}), apart = model_of(b, plain)->forward(x, {});
  EXPECT_EQ(fused.logits.shape(), (Shape{3, 5}));
  // Folded weights are rounded to f32 once more.
  expect_close(fused.logits, apart.logits, 1e-6);
  expect_close(model_of(b)->forward(x, {}).logits, apart.logits, 1e-5);
  OnnxModelOptions coarse;
  coarse.dtype = DType::bf16;
  expect_close(model_of(b, coarse)->forward(x, {}).logits, apart.logits, 3e-2);
}

TEST(OnnxModel, GivesEveryTapThatIsAskedFor) {
  const auto model = model_of(residual_network());
  EXPECT_THAT(model->tap_names(),
              ElementsAre("conv1", "norm1", "relu1", "conv2", "norm2", "sum", "relu2", "pool", "mean", "flat", "fc"));
  EXPECT_THAT(model->stage_names(), ElementsAre("relu2", "pool"));
  const Tensor x = images(2);
  const ModelOutput output = model->forward(x, {}, {"conv1", "sum", "relu2", "pool", "flat", "fc"});
  EXPECT_EQ(output.taps.at("sum").shape(), (Shape{2, 8, 8, 6}));
  EXPECT_EQ(output.taps.at("pool").shape(), (Shape{2, 4, 4, 6}));
  EXPECT_EQ(output.taps.at("flat").shape(), (Shape{2, 6}));
  expect_close(activation(output.taps.at("sum"), Activation::relu), output.taps.at("relu2"), 0);
  expect_close(output.taps.at("fc"), output.logits, 0);
  expect_close(model->forward(x, {}).logits, output.logits, 1e-5);
  EXPECT_THAT(error_of([&] { model->forward(x, {}, {"conv9"}); }), HasSubstr("no tap \"conv9\""));
}

TEST(OnnxModel, KnowsItself) {
  OnnxBuilder b = residual_network();
  const auto model = model_of(b);
  EXPECT_EQ(model->spec().arch, "onnx");
  EXPECT_EQ(model->spec().classes, 5);
  EXPECT_EQ(model->height(), 8);
  EXPECT_THAT(model->note(), HasSubstr("Softmax"));
  // conv1 162 + 6, conv2 324 + 6, gamma and beta 24, fc 35; running statistics are no parameters
  EXPECT_EQ(model->parameters().parameter_count(), 557);
  EXPECT_EQ(model->parameters().buffers().size(), 4U);
  EXPECT_EQ(model->parameters().device(), Device{});
  EXPECT_EQ(model->parameters().compute(), DType::f32);
  ForwardMode training;
  training.training = true;
  EXPECT_THAT(error_of([&] { model->forward(images(1), training); }), HasSubstr("inference only"));
  EXPECT_THAT(error_of([&] { model->forward(images(1, 4), {}); }), HasSubstr("is for images of 8x8, these are 4x4"));
}

TEST(OnnxModel, RunsAnyBatchThatTheGraphAllows) {
  EXPECT_EQ(model_of(residual_network(1))->forward(images(4), {}).logits.shape(), (Shape{4, 5}));
  OnnxBuilder b = residual_network(1);
  b.integers("one_row", {1, 6});
  b.graph().mutable_node(9)->set_op_type("Reshape");  // in place of Flatten
  b.graph().mutable_node(9)->add_input("one_row");
  EXPECT_EQ(model_of(b)->forward(images(1), {}).logits.shape(), (Shape{1, 5}));
  // By itself the graph is for one image; it runs four times.
  expect_close(model_of(b)->forward(images(4), {}).logits, model_of(residual_network(1))->forward(images(4), {}).logits,
               1e-5);
}

// Grouped, dilated, strided, padded on one side only; against the definition.
TEST(OnnxModel, ConvolvesByTheDefinition) {
  OnnxBuilder b;
  b.input("image", {1, 3, 9, 7});
  const std::vector<float> weight = random_values(6 * 1 * 3 * 2, 5);
  b.weights("w", {6, 1, 3, 2}, weight);
  b.node("Conv", {"image", "w"}, {"y"})
      .set("group", std::int64_t{3})
      .list("dilations", {2, 1})
      .list("strides", {1, 2})
      .list("pads", {0, 1, 2, 0});
  b.output("y");
  onnx::RunOptions options;
  options.dtype = DType::f64;
  onnx::Runner runner(parse_onnx(b.bytes(), "m.onnx"), options);
  OnnxArray x;
  x.dims = {1, 3, 9, 7};
  x.floats = random_values(3 * 9 * 7, 6);
  const OnnxArray y = runner.run({{"image", x}}).at(0);
  ASSERT_EQ(y.dims, (Extents{1, 6, 7, 4}));
  for (int o = 0, at = 0; o < 6; ++o) {
    for (int i = 0; i < 7; ++i) {
      for (int j = 0; j < 4; ++j, ++at) {
        double sum = 0;
        for (int p = 0; p < 3; ++p) {
          for (int q = 0; q < 2; ++q) {
            const int row = i + 2 * p, column = 2 * j + q - 1;
            if (row >= 9 || column < 0 || column >= 7) continue;
            sum += static_cast<double>(weight[static_cast<std::size_t>(o * 6 + p * 2 + q)]) *
                   x.floats[static_cast<std::size_t>(o / 2 * 63 + row * 7 + column)];
          }
        }
        ASSERT_NEAR(y.floats[static_cast<std::size_t>(at)], sum, 1e-6);
      }
    }
  }
}

// As PyTorch exports x.view(x.size(0), 2, C / 2, H, W).transpose(1, 2).reshape(...) and a flatten of a free batch.
TEST(OnnxModel, ComputesShapesAndShufflesChannels) {
  OnnxBuilder b;
  b.input("image", {-1, 3, 4, 4});
  convolution(b, "image", "conv", 3, 6, 1, 1);
  b.integers("split", {0, 2, 3, 4, 4});
  b.node("Reshape", {"conv", "split"}, {"groups"});
  b.node("Transpose", {"groups"}, {"turned"}).list("perm", {0, 2, 1, 3, 4});
  b.integers("joined", {0, 6, 4, 4});
  b.node("Reshape", {"turned", "joined"}, {"shuffled"});
  b.node("Shape", {"shuffled"}, {"shape"});
  b.integers("zero", {0});
  b.node("Gather", {"shape", "zero"}, {"n"});
  b.integers("rest", {-1});
  b.node("Concat", {"n", "rest"}, {"flat_shape"}).set("axis", std::int64_t{0});
  b.node("Reshape", {"shuffled", "flat_shape"}, {"flat"});
  b.output("flat");
  const auto model = model_of(b);
  const ModelOutput output = model->forward(images(2, 4), {}, {"conv", "shuffled"});
  const auto conv = output.taps.at("conv").to_doubles(), shuffled = output.taps.at("shuffled").to_doubles(),
             flat = output.logits.to_doubles();
  ASSERT_EQ(output.logits.shape(), (Shape{2, 96}));
  for (std::size_t n = 0; n < 2; ++n) {
    for (std::size_t p = 0; p < 16; ++p) {
      for (std::size_t c = 0; c < 6; ++c) {
        const double from = conv[(n * 16 + p) * 6 + c % 2 * 3 + c / 2];
        ASSERT_EQ(shuffled[(n * 16 + p) * 6 + c], from);
        ASSERT_EQ(flat[n * 96 + c * 16 + p], from);
      }
    }
  }
  // The shuffle is one copy, the flattening another.
  EXPECT_EQ(count_of<onnx::CopyStep>(plan_of(b, {2, 3, 4, 4}, {"flat"})), 2);
}

TEST(OnnxModel, FusesGates) {
  OnnxBuilder b;
  b.input("image", {1, 3, 2, 2});
  b.node("Sigmoid", {"image"}, {"s"});
  b.node("Mul", {"image", "s"}, {"silu"});
  b.node("HardSigmoid", {"silu"}, {"h"}).set("alpha", 1.0 / 6).set("beta", 0.5);
  b.node("Mul", {"h", "silu"}, {"y"});
  b.output("y");
  const onnx::Plan plan = plan_of(b, {1, 3, 2, 2}, {"y"});
  EXPECT_EQ(count_of<onnx::UnaryStep>(plan), 2);
  EXPECT_EQ(count_of<onnx::BinaryStep>(plan), 0);
  OnnxArray x;
  x.dims = {1, 3, 2, 2};
  x.floats = random_values(12, 3, -6, 6);
  for (const bool fuse : {true, false}) {
    onnx::RunOptions options;
    options.dtype = DType::f64;
    options.compile.fuse = fuse;
    const OnnxArray y = onnx::Runner(parse_onnx(b.bytes(), "m.onnx"), options).run({{"image", x}}).at(0);
    for (std::size_t i = 0; i < 12; ++i) {
      const double silu = x.floats[i] / (1 + std::exp(-static_cast<double>(x.floats[i])));
      ASSERT_NEAR(y.floats[i], silu * std::min(1.0, std::max(0.0, silu / 6 + 0.5)), 1e-6);
    }
  }
}

TEST(OnnxModel, NamesWhatItDoesNotRead) {
  OnnxBuilder b = residual_network();
  b.node("Foo", {"probabilities"}, {"/layer1/Foo_3"});
  b.graph().mutable_output(0)->set_name("/layer1/Foo_3");
  EXPECT_EQ(error_of([&] { model_of(b); }),
            "m.onnx: node \"/layer1/Foo_3\": operator Foo is not among those that Retort reads (docs/onnx.md)");
  for (int k = 0; k < 6; ++k) {
    b.node("Bar", {b.graph().output(0).name()}, {"bar" + std::to_string(k)});
    b.graph().mutable_output(0)->set_name("bar" + std::to_string(k));
  }
  EXPECT_THAT(error_of([&] { model_of(b); }),
              AllOf(HasSubstr("\"bar3\""), Not(HasSubstr("\"bar4\"")), HasSubstr("and 2 nodes more")));
  const auto refusal = [](const std::function<void(OnnxBuilder&)>& change) {
    OnnxBuilder changed = residual_network();
    change(changed);
    const std::string error = error_of([&] { model_of(changed); });
    EXPECT_THAT(error, StartsWith("m.onnx: "));
    return error;
  };
  const auto set_in_pool = [](const std::string& name, std::int64_t value) {
    return [=](OnnxBuilder& c) { OnnxBuilder::Node(*c.graph().mutable_node(7)).set(name, value); };
  };
  EXPECT_THAT(refusal(set_in_pool("storage_order", 1)), HasSubstr("node \"pool\": MaxPool: storage_order 1"));
  EXPECT_THAT(refusal(set_in_pool("depth", 1)), HasSubstr("the attribute \"depth\" of MaxPool"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) {
                OnnxBuilder::Node(*c.graph().mutable_node(1)).set("training_mode", std::int64_t{1});
              }),
              HasSubstr("node \"norm1\": BatchNormalization: is in training mode"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) { c.model.mutable_opset_import(0)->set_version(6); }),
              HasSubstr("of version 6 of ONNX's operators is not read, from 7 on it is"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) { c.model.mutable_opset_import(0)->set_version(99); }),
              HasSubstr("uses version 99"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) { c.graph().mutable_node(0)->set_domain("mine"); }),
              HasSubstr("operator mine::Conv"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) {
                c.input("second", {1, 5});
                c.node("Add", {"probabilities", "second"}, {"both"});
                c.graph().mutable_output(0)->set_name("both");
              }),
              HasSubstr("has 2 inputs that its logits depend on"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) {
                c.graph().clear_output();
                c.output("pool");
              }),
              HasSubstr("where logits [N, classes] were expected"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) { c.graph().mutable_initializer(0)->set_float_data(3, NAN); }),
              HasSubstr("\"conv1.w\" holds NaN or infinity"));
  EXPECT_THAT(refusal([](OnnxBuilder& c) {
                c.graph()
                    .mutable_input(0)
                    ->mutable_type()
                    ->mutable_tensor_type()
                    ->mutable_shape()
                    ->mutable_dim(1)
                    ->set_dim_value(1);
              }),
              HasSubstr("[N, 3, H, W]"));
}

TEST(OnnxModel, BoundsWhatFoldingMakes) {
  OnnxBuilder b;
  b.input("image", {1, 3, 2, 2});
  b.integers("huge", {1 << 20, 1 << 20});
  b.node("ConstantOfShape", {"huge"}, {"zeros"});
  b.node("Add", {"image", "zeros"}, {"y"});
  b.output("y");
  EXPECT_THAT(error_of([&] { model_of(b); }), HasSubstr("node \"zeros\": ConstantOfShape"));
}

}  // namespace
}  // namespace retort
