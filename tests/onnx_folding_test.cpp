// Constants are constants: whatever operator stands between a file's weights and the layer that uses them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "engine/weight_file.h"
#include "models/onnx/runner.h"
#include "models/onnx_model.h"
#include "tests/support/files.h"
#include "tests/support/onnx_builder.h"

namespace retort {
namespace {

using test::error_of;
using test::OnnxBuilder;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Build = std::function<void(OnnxBuilder&)>;

std::vector<float> values(std::int64_t count, unsigned seed = 1, float least = -1, float most = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(least, most);
  std::vector<float> all(static_cast<std::size_t>(count));
  for (float& v : all) v = draw(engine);
  return all;
}

OnnxArray array(const Extents& dims, const std::vector<float>& floats) {
  OnnxArray a;
  a.dims = dims;
  a.floats = floats;
  return a;
}

void expect_near(const OnnxArray& found, const OnnxArray& expected, double tolerance) {
  ASSERT_EQ(found.dims, expected.dims);
  for (std::size_t i = 0; i < expected.floats.size(); ++i) {
    ASSERT_NEAR(found.floats[i], expected.floats[i], tolerance * (1 + std::abs(expected.floats[i]))) << i;
  }
}

// An operator y = f(w), and its results where w is computed and where it is an initializer.
struct Case {
  const char* name;
  Extents dims;  // of w
  Build build;
};

std::vector<Case> cases() {
  using B = OnnxBuilder;
  const auto four = [](B& b, const std::string& name, std::int64_t n) {
    for (const char* suffix : {".g", ".b", ".m", ".v"}) b.weights(name + suffix, {n}, values(n, 3, 0.5F, 2));
  };
  return {
      {"MatMul",
       {6, 4},
       [](B& b) {
         b.weights("v", {4, 27}, values(108));
         b.node("MatMul", {"w", "v"}, {"y"});
       }},
      {"batched MatMul",
       {2, 3, 4},
       [](B& b) {
         b.weights("v", {2, 4, 5}, values(40));
         b.node("MatMul", {"w", "v"}, {"y"});
       }},
      {"Gemm",
       {4, 6},
       [](B& b) {
         b.weights("v", {5, 4}, values(20));
         b.weights("c", {6, 5}, values(30));
         b.node("Gemm", {"w", "v", "c"}, {"y"})
             .set("transA", std::int64_t{1})
             .set("transB", std::int64_t{1})
             .set("alpha", 0.5)
             .set("beta", 2.0);
       }},
      {"Conv",
       {2, 3, 5, 5},
       [](B& b) {
         b.weights("k", {4, 3, 3, 3}, values(108));
         b.weights("c", {4}, values(4));
         b.node("Conv", {"w", "k", "c"}, {"y"}).list("pads", {1, 0, 0, 1}).list("strides", {2, 1});
       }},
      {"BatchNormalization",
       {1, 6, 27},
       [=](B& b) {
         four(b, "n", 6);
         b.node("BatchNormalization", {"w", "n.g", "n.b", "n.m", "n.v"}, {"y"});
       }},
      {"Softmax", {6, 3, 3, 3}, [](B& b) { b.node("Softmax", {"w"}, {"y"}).set("axis", std::int64_t{1}); }},
      {"LogSoftmax", {6, 9}, [](B& b) { b.node("LogSoftmax", {"w"}, {"y"}); }},
      {"MaxPool",
       {2, 3, 6, 6},
       [](B& b) {
         b.node("MaxPool", {"w"}, {"y"}).list("kernel_shape", {3, 2}).list("strides", {2, 2});
       }},
      {"AveragePool",
       {2, 3, 6, 6},
       [](B& b) {
         b.node("AveragePool", {"w"}, {"y"}).list("kernel_shape", {2, 2});
       }},
      {"GlobalAveragePool", {2, 3, 4, 4}, [](B& b) { b.node("GlobalAveragePool", {"w"}, {"y"}); }},
      {"GlobalMaxPool", {2, 3, 4, 4}, [](B& b) { b.node("GlobalMaxPool", {"w"}, {"y"}); }},
      {"ReduceMean",
       {2, 3, 4},
       [](B& b) {
         b.node("ReduceMean", {"w"}, {"y"}).list("axes", {0, 2});
       }},
      {"HardSwish", {3, 3}, [](B& b) { b.node("HardSwish", {"w"}, {"y"}); }},
      {"PRelu",
       {3, 4},
       [](B& b) {
         b.weights("slope", {4}, values(4));
         b.node("PRelu", {"w", "slope"}, {"y"});
       }},
      {"a weight norm",
       {6, 12},  // g v / |v|, the norm row by row
       [](B& b) {
         b.weights("g", {6, 1}, values(6, 5));
         b.node("ReduceL2", {"w"}, {"norm"}).list("axes", {1});
         b.node("Div", {"w", "norm"}, {"unit"});
         b.node("Mul", {"unit", "g"}, {"y"});
       }},
  };
}

TEST(OnnxFolding, GivesWhatTheOperatorComputes) {
  for (const Case& one : cases()) {
    const OnnxArray w = array(one.dims, values(element_count(one.dims, one.name), 9));
    OnnxBuilder computed, constant;
    computed.input("w", one.dims);
    constant.weights("w", one.dims, w.floats);
    for (OnnxBuilder* b : {&computed, &constant}) {
      one.build(*b);
      b->output("y");
    }
    onnx::RunOptions exact;
    exact.dtype = DType::f64;
    const OnnxArray expected = onnx::Runner(parse_onnx(computed.bytes(), "m.onnx"), exact).run({{"w", w}}).at(0);
    const onnx::Runner folded(parse_onnx(constant.bytes(), "m.onnx"), {});
    EXPECT_TRUE(folded.graph().nodes.empty()) << one.name;
    ASSERT_EQ(folded.graph().initializers.count("y"), 1U) << one.name;
    SCOPED_TRACE(one.name);
    expect_near(*folded.graph().initializers.at("y"), expected, 1e-6);
  }
}

// A convolution [6, 3, 3, 3] whose filters `make` leaves as "filters", their mean, and a linear layer.
OnnxBuilder network(const Build& make, std::int64_t opset = 17) {
  OnnxBuilder b(opset);
  b.input("image", {-1, 3, 6, 6});
  make(b);
  b.node("Conv", {"image", "filters"}, {"conv"});
  b.node("Relu", {"conv"}, {"relu"});
  b.node("GlobalAveragePool", {"relu"}, {"mean"});
  b.node("Flatten", {"mean"}, {"flat"});
  b.weights("fc", {6, 5}, values(30, 4));
  b.node("MatMul", {"flat", "fc"}, {"logits"});
  b.output("logits");
  return b;
}

OnnxBuilder plain_network(const std::vector<float>& filters) {
  return network([&](OnnxBuilder& b) { b.weights("filters", {6, 3, 3, 3}, filters); });
}

std::unique_ptr<OnnxModel> model_of(const OnnxBuilder& b) {
  return std::make_unique<OnnxModel>(parse_onnx(b.bytes(), "m.onnx"), OnnxModelOptions{});
}

void expect_same_logits(const OnnxModel& a, const OnnxModel& b) {
  const Tensor x = Tensor::from(values(3 * 6 * 6 * 3, 2), {3, 6, 6, 3});
  expect_near(array({3, 5}, a.forward(x, {}).logits.to_host<float>()),
              array({3, 5}, b.forward(x, {}).logits.to_host<float>()), 1e-5);
}

// Filter by filter less the mean, divided by the deviation, times a gain.
std::vector<float> standardised(std::vector<float> filters, const std::vector<float>& gains) {
  for (std::size_t o = 0; o < gains.size(); ++o) {
    float* const filter = filters.data() + 27 * o;
    double mean = 0, variance = 0;
    for (int i = 0; i < 27; ++i) mean += filter[i] / 27.0;
    for (int i = 0; i < 27; ++i) variance += (filter[i] - mean) * (filter[i] - mean) / 27;
    for (int i = 0; i < 27; ++i) {
      filter[i] = static_cast<float>((filter[i] - mean) / std::sqrt(variance + 1e-5) * gains[o]);
    }
  }
  return filters;
}

// PyTorch writes standardised weights as a batch normalisation in training mode, after model.eval() too.
TEST(OnnxFolding, NormalisesWeightsByTheirOwnStatistics) {
  const std::vector<float> raw = values(162, 6), gains = values(6, 8, 0.5F, 2);
  for (const std::int64_t opset : {9, 12, 14, 17}) {
    const auto model = model_of(network(
        [&](OnnxBuilder& b) {
          b.weights("raw", {6, 3, 3, 3}, raw);
          b.weights("gains", {6}, gains);
          b.weights("zeros", {6}, std::vector<float>(6, 0));
          b.weights("ones", {6}, std::vector<float>(6, 1));
          b.integers("rows", {1, 6, -1});
          b.integers("back", {6, 3, 3, 3});
          b.node("Reshape", {"raw", "rows"}, {"flat_raw"});
          std::vector<std::string> results{"normalised", "new_mean", "new_variance"};
          if (opset < 14) results.insert(results.end(), {"saved_mean", "saved_variance"});
          auto node = b.node("BatchNormalization", {"flat_raw", "gains", "zeros", "zeros", "ones"}, results);
          if (opset >= 14) node.set("training_mode", std::int64_t{1});
          b.node("Reshape", {"normalised", "back"}, {"filters"});
        },
        opset));
    expect_same_logits(*model, *model_of(plain_network(standardised(raw, gains))));
    // 162 filters' and 6 gains, 30 of the last layer; the zeros and ones are nobody's.
    EXPECT_EQ(model->parameters().parameter_count(), 198) << opset;
    EXPECT_TRUE(model->parameters().buffers().empty());
  }
}

TEST(OnnxFolding, MultipliesFactorsOfWeights) {
  const std::vector<float> left = values(24, 6), right = values(108, 7);
  std::vector<float> whole(162, 0);
  for (std::size_t o = 0; o < 6; ++o) {
    for (std::size_t i = 0; i < 27; ++i) {
      for (std::size_t k = 0; k < 4; ++k) whole[27 * o + i] += left[4 * o + k] * right[27 * k + i];
    }
  }
  const auto model = model_of(network([&](OnnxBuilder& b) {
    b.weights("left", {6, 4}, left);
    b.weights("right", {4, 27}, right);
    b.integers("back", {6, 3, 3, 3});
    b.node("MatMul", {"left", "right"}, {"product"});
    b.node("Reshape", {"product", "back"}, {"filters"});
  }));
  expect_same_logits(*model, *model_of(plain_network(whole)));
  EXPECT_EQ(model->parameters().parameter_count(), 24 + 108 + 30);
}

// What depends on the shape of the input is known once that is.
TEST(OnnxFolding, ComputesWithConstantsThatAShapeLeadsTo) {
  const std::vector<float> one = values(27, 6);
  std::vector<float> six;
  for (int o = 0; o < 6; ++o) six.insert(six.end(), one.begin(), one.end());
  const auto model = model_of(network([&](OnnxBuilder& b) {
    b.weights("one", {1, 27}, one);
    b.integers("last", {3});
    b.integers("single", {1});
    b.integers("back", {6, 3, 3, 3});
    b.node("Shape", {"image"}, {"shape"});
    b.node("Gather", {"shape", "last"}, {"width"});  // [6]
    b.node("Concat", {"width", "single"}, {"column"}).set("axis", std::int64_t{0});
    b.node("ConstantOfShape", {"column"}, {"zeros"});
    b.node("Exp", {"zeros"}, {"ones"});
    b.node("MatMul", {"ones", "one"}, {"rows"});
    b.node("Reshape", {"rows", "back"}, {"filters"});
  }));
  expect_same_logits(*model, *model_of(plain_network(six)));
}

TEST(OnnxFolding, CountsWeightsWhereverTheyLie) {
  std::vector<float> filters = values(162, 6);
  for (float& v : filters) v = half_to_float(to_half(v));
  const auto as_node = [](OnnxBuilder& b, ::onnx::TensorProto tensor, const std::string& name) {
    b.node("Constant", {}, {name});
    auto& attribute = *b.graph().mutable_node(b.graph().node_size() - 1)->add_attribute();
    attribute.set_name("value");
    attribute.set_type(::onnx::AttributeProto::TENSOR);
    *attribute.mutable_t() = std::move(tensor);
  };
  const auto constant = model_of(network([&](OnnxBuilder& b) {
    OnnxBuilder elsewhere;
    as_node(b, elsewhere.weights("", {6, 3, 3, 3}, filters), "filters");
  }));
  const auto widened = model_of(network([&](OnnxBuilder& b) {  // f16 is for storing alone
    OnnxBuilder elsewhere;
    ::onnx::TensorProto& tensor = elsewhere.weights("", {6, 3, 3, 3}, {});
    tensor.set_data_type(::onnx::TensorProto::FLOAT16);
    for (const float v : filters) tensor.add_int32_data(to_half(v));
    as_node(b, tensor, "stored");
    b.node("Cast", {"stored"}, {"filters"}).set("to", std::int64_t{1});
  }));
  for (const OnnxModel* model : {constant.get(), widened.get()}) {
    EXPECT_EQ(model->parameters().parameter_count(), 192);
    EXPECT_EQ(model->parameters().parameters().size(), 2U);
    expect_same_logits(*model, *model_of(plain_network(filters)));
  }
}

TEST(OnnxFolding, NamesWeightsThatComeOutUnsound) {
  EXPECT_THAT(error_of([] {
                model_of(network([](OnnxBuilder& b) {
                  b.weights("raw", {6, 3, 3, 3}, std::vector<float>(162, 0));
                  b.node("Div", {"raw", "raw"}, {"filters"});
                }));
              }),
              HasSubstr("m.onnx: \"filters\" holds NaN or infinity"));
}

TEST(OnnxFolding, BlamesTheInputOnlyWhereItIsToBlame) {
  const auto refusal = [](const char* factor) {
    return error_of([&] {
      model_of(network([&](OnnxBuilder& b) {
        b.weights("raw", {6, 2, 6, 6}, values(432));
        b.node("GlobalMaxPool", {"image"}, {"brightest"});
        b.node("ReduceMean", {"brightest"}, {"brightness"});
        b.node("Mul", {"raw", factor}, {"filters"});
      }));
    });
  };
  EXPECT_THAT(refusal("brightness"), HasSubstr("\"filters\") depends on the network's input"));
  EXPECT_THAT(refusal("raw"), AllOf(HasSubstr("weights of extents [6, 2, 6, 6]"), Not(HasSubstr("depends on"))));
}

}  // namespace
}  // namespace retort
