// What is in an exported file. That it computes the same is checked by tests/parity/export_parity.py, in onnxruntime.
#include "engine/onnx_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "distill/export.h"
#include "engine/ops.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Forward = std::function<Tensor(const Tensor&)>;

onnx::ModelProto parse(const std::string& bytes) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(bytes));
  return model;
}

onnx::ModelProto exported(const Forward& forward, const Shape& image = {4, 6, 3}, const OnnxExportOptions& options = {},
                          const NamedTensors& constants = {}) {
  return parse(onnx_model(forward, image, constants, options));
}

std::map<std::string, int> operators(const onnx::GraphProto& graph) {
  std::map<std::string, int> counts;
  for (const auto& node : graph.node()) ++counts[node.op_type()];
  return counts;
}

std::vector<std::int64_t> ints(const onnx::NodeProto& node, const std::string& name) {
  for (const auto& attribute : node.attribute()) {
    if (attribute.name() == name) return {attribute.ints().begin(), attribute.ints().end()};
  }
  return {};
}

std::vector<std::string> extents(const onnx::ValueInfoProto& info) {
  std::vector<std::string> out;
  for (const auto& dim : info.type().tensor_type().shape().dim()) {
    out.push_back(dim.has_dim_param() ? dim.dim_param() : std::to_string(dim.dim_value()));
  }
  return out;
}

const onnx::TensorProto& initializer(const onnx::GraphProto& graph, const std::string& name) {
  for (const auto& tensor : graph.initializer()) {
    if (tensor.name() == name) return tensor;
  }
  ADD_FAILURE() << "no initializer " << name;
  return graph.initializer(0);
}

// Names are made once and before they are used, and all that is there is used.
void expect_sound(const onnx::GraphProto& graph) {
  std::set<std::string> made{graph.input(0).name()}, used, nodes;
  for (const auto& tensor : graph.initializer()) EXPECT_TRUE(made.insert(tensor.name()).second) << tensor.name();
  for (const auto& node : graph.node()) {
    for (const auto& input : node.input()) {
      EXPECT_TRUE(made.contains(input)) << node.name() << " reads " << input;
      used.insert(input);
    }
    EXPECT_TRUE(nodes.insert(node.name()).second) << node.name();
    ASSERT_EQ(node.output_size(), 1);
    EXPECT_TRUE(made.insert(node.output(0)).second) << node.output(0);
  }
  used.insert("logits");
  EXPECT_EQ(made, used);
}

Classifier classifier(const ModelSpec& spec, bool fold, std::int64_t size) {
  Classifier c;
  c.file = "test";
  c.model = make_model(spec);
  c.model->parameters().materialize({}, DType::f32, 3);
  if (fold) c.model->fold();
  c.height = c.width = size;
  c.metadata = {{"dataset", "shapes"}, {"retort.crc32", "0"}, {"arch", "somebody else's word"}};
  c.normalization = Normalization{{0.5, 0.25, 0.125}, {0.2, 0.3, 0.4}};
  for (int i = 0; i < spec.classes; ++i) c.class_names.push_back("class " + std::to_string(i));
  return c;
}

struct Network {
  const char* name;
  ModelSpec spec;
  std::int64_t size;
  std::map<std::string, int> rest;  // operators besides Conv and BatchNormalization
};

class OnnxExportFile : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  onnx::ModelProto written(const Classifier& c, const ExportOptions& options = {}) {
    const std::string path = folder_ / "student.onnx";
    export_onnx(c, path, options);
    return parse(test::read_file(path));
  }
};

class OnnxExport : public OnnxExportFile, public testing::WithParamInterface<Network> {};

TEST_P(OnnxExport, HasTheNetworksNodesWeightsAndMetadata) {
  const Network& network = GetParam();
  for (const bool fold : {false, true}) {
    const Classifier c = classifier(network.spec, fold, network.size);
    const onnx::ModelProto model = written(c);
    const onnx::GraphProto& graph = model.graph();
    expect_sound(graph);
    EXPECT_EQ(model.ir_version(), 8);
    EXPECT_EQ(model.opset_import(0).version(), 17);
    const std::string side = std::to_string(network.size);
    EXPECT_THAT(extents(graph.input(0)), ElementsAre("batch", "3", side, side));
    EXPECT_THAT(extents(graph.output(0)), ElementsAre("batch", std::to_string(network.spec.classes)));
    EXPECT_EQ(graph.output(0).name(), "logits");

    std::map<std::string, int> expected = network.rest;
    int convolutions = 0;
    for (const auto& p : c.model->parameters().parameters()) convolutions += p->kind == ParameterKind::conv_weight;
    expected["Conv"] = convolutions;
    if (!fold) expected["BatchNormalization"] = convolutions;
    EXPECT_EQ(operators(graph), expected);

    // The weights are those of a checkpoint, bit for bit; a folded convolution's have its shape.
    WeightFile checkpoint;
    checkpoint.arrays = c.model->parameters().to_arrays();
    for (const auto& p : c.model->parameters().parameters()) {
      const bool normalization = p->kind == ParameterKind::norm_scale || p->kind == ParameterKind::norm_shift;
      if (fold && normalization) continue;
      const NamedArray& array = *checkpoint.find(p->name);
      const onnx::TensorProto& tensor = initializer(graph, p->name);
      EXPECT_EQ(std::vector<std::int64_t>(tensor.dims().begin(), tensor.dims().end()), array.shape) << p->name;
      if (fold && p->kind == ParameterKind::conv_weight) continue;
      ASSERT_EQ(tensor.raw_data().size(), array.bytes.size());
      EXPECT_EQ(std::memcmp(tensor.raw_data().data(), array.bytes.data(), array.bytes.size()), 0) << p->name;
    }

    std::map<std::string, std::string> metadata;
    for (const auto& entry : model.metadata_props()) metadata[entry.key()] = entry.value();
    EXPECT_EQ(metadata["arch"], network.spec.arch);
    EXPECT_EQ(metadata["classes"], std::to_string(network.spec.classes));
    EXPECT_EQ(metadata["class_names"].substr(0, 15), "class 0\nclass 1");
    EXPECT_EQ(metadata["normalize_mean"], "0.5 0.25 0.125");
    EXPECT_EQ(metadata["normalize_std"], "0.2 0.3 0.4");
    EXPECT_EQ(metadata["input_size"], side + " " + side);
    EXPECT_EQ(metadata["dataset"], "shapes");
    EXPECT_FALSE(metadata.contains("retort.crc32"));
  }
}

const std::map<std::string, int> kTail{{"GlobalAveragePool", 1}, {"Flatten", 1}, {"Gemm", 1}};

std::map<std::string, int> with_tail(std::map<std::string, int> counts) {
  counts.insert(kTail.begin(), kTail.end());
  return counts;
}

INSTANTIATE_TEST_SUITE_P(
    Networks, OnnxExport,
    testing::Values(Network{"resnet8", {.arch = "resnet8"}, 32, with_tail({{"Relu", 7}, {"Add", 3}})},
                    Network{"resnet8x4", {.arch = "resnet8x4", .classes = 7}, 32, with_tail({{"Relu", 7}, {"Add", 3}})},
                    Network{"resnet20_pad",
                            {.arch = "resnet20", .shortcut = "pad"},
                            32,
                            with_tail({{"Relu", 19}, {"Add", 9}, {"Pad", 2}, {"AveragePool", 2}})},
                    Network{"resnet18_imagenet",
                            {.arch = "resnet18", .stem = "imagenet"},
                            64,
                            with_tail({{"Relu", 17}, {"Add", 8}, {"MaxPool", 1}})}),
    [](const auto& test) { return test.param.name; });

TEST_F(OnnxExportFile, PadsChannelsOfTheParameterFreeShortcut) {
  const onnx::ModelProto model = written(classifier({.arch = "resnet20", .shortcut = "pad"}, true, 32));
  for (const auto& node : model.graph().node()) {
    if (node.op_type() != "Pad") continue;
    const onnx::TensorProto& pads = initializer(model.graph(), node.input(1));
    std::vector<std::int64_t> values(8);
    ASSERT_EQ(pads.raw_data().size(), 64U);
    std::memcpy(values.data(), pads.raw_data().data(), 64);
    const std::int64_t n = node.name() == "pad" ? 8 : 16;
    EXPECT_THAT(values, ElementsAre(0, n, 0, 0, 0, n, 0, 0));
  }
}

TEST_F(OnnxExportFile, HalfPrecisionLiesBetweenTwoCasts) {
  const onnx::ModelProto model = written(classifier({.arch = "resnet8"}, false, 32), {.precision = "f16"});
  const onnx::GraphProto& graph = model.graph();
  expect_sound(graph);
  EXPECT_EQ(operators(graph)["Cast"], 2);
  EXPECT_EQ(graph.input(0).type().tensor_type().elem_type(), onnx::TensorProto::FLOAT);
  EXPECT_EQ(graph.output(0).type().tensor_type().elem_type(), onnx::TensorProto::FLOAT);
  for (const auto& tensor : graph.initializer()) {
    EXPECT_EQ(tensor.data_type(), onnx::TensorProto::FLOAT16) << tensor.name();
  }
  Classifier large = classifier({.arch = "resnet8"}, false, 32);
  large.model->parameters().buffers()[0]->value.fill(1e5);  // bn1.running_mean
  EXPECT_EQ(error_of([&] { written(large, {.precision = "f16"}); }),
            "bn1.running_mean: holds 100000, which f16 cannot; export it in f32");
}

TEST_F(OnnxExportFile, NormalizesTheInputOnRequest) {
  Classifier c = classifier({.arch = "resnet8"}, true, 32);
  const onnx::ModelProto model = written(c, {.precision = "f16", .normalize_input = true});
  const onnx::GraphProto& graph = model.graph();
  expect_sound(graph);
  EXPECT_EQ(graph.node(0).op_type(), "Sub");
  EXPECT_EQ(graph.node(1).op_type(), "Div");
  const onnx::TensorProto& deviation = initializer(graph, "normalize.std");
  float values[3];
  ASSERT_EQ(deviation.raw_data().size(), sizeof values);  // f32 in front of the f16
  std::memcpy(values, deviation.raw_data().data(), sizeof values);
  EXPECT_THAT(values, ElementsAre(0.2F, 0.3F, 0.4F));
  for (const auto& entry : model.metadata_props()) {
    EXPECT_TRUE(entry.key() != "normalize_mean" || entry.value() == "0 0 0");
    EXPECT_TRUE(entry.key() != "normalize_std" || entry.value() == "1 1 1");
  }
  c.normalization.reset();
  EXPECT_THAT(error_of([&] { written(c, {.normalize_input = true}); }), HasSubstr("add --normalize NAME"));
  c.height = 0;
  EXPECT_THAT(error_of([&] { written(c); }), HasSubstr("add --input-size"));
}

TEST_F(OnnxExportFile, WritesSafetensorsOfTheWeightsAlone) {
  const Classifier c = classifier({.arch = "resnet8"}, false, 32);
  const std::string path = folder_ / "student.safetensors";
  export_safetensors(c, path, {});
  const WeightFile file = read_safetensors(path);
  EXPECT_EQ(file.arrays.size(), c.model->parameters().to_arrays().size());
  EXPECT_EQ(file.metadata.at("arch"), "resnet8");
  for (const NamedArray& array : c.model->parameters().to_arrays()) {
    ASSERT_NE(file.find(array.name), nullptr) << array.name;
    EXPECT_EQ(file.find(array.name)->bytes, array.bytes) << array.name;
    EXPECT_EQ(file.find(array.name)->shape, array.shape) << array.name;
  }
  for (const auto& [precision, bits] : {std::pair{"f16", 11}, {"bf16", 8}}) {
    export_safetensors(c, path, {.precision = precision});
    const auto again = make_model({.arch = "resnet8"});
    again->parameters().materialize({}, DType::f32, 4);
    again->parameters().load(read_safetensors(path));
    const auto want = c.model->parameters().values().to_doubles(), got = again->parameters().values().to_doubles();
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], std::abs(want[i]) * std::ldexp(1.0, -bits) + std::ldexp(1.0, -25)) << precision;
    }
  }
  EXPECT_THAT(error_of([&] { export_safetensors(classifier({.arch = "resnet8"}, true, 32), path, {}); }),
              HasSubstr("a folded network has no parameters under their names"));
}

// --- operators that no network has yet

TEST(OnnxExportOperators, ReshapeKeepsTheOrderOfElements) {
  const auto flat = exported([](const Tensor& x) { return flatten(x); });
  ASSERT_EQ(flat.graph().node_size(), 2);
  EXPECT_THAT(ints(flat.graph().node(0), "perm"), ElementsAre(0, 2, 3, 1));
  EXPECT_EQ(flat.graph().node(1).op_type(), "Flatten");
  EXPECT_THAT(extents(flat.graph().output(0)), ElementsAre("batch", "72"));

  const auto back = exported([](const Tensor& x) {
    return global_average_pool(reshape(flatten(x), {x.dim(0), 2, 3, 12}));
  });
  expect_sound(back.graph());
  EXPECT_EQ(operators(back.graph())["Transpose"], 2);
  const onnx::TensorProto& shape = initializer(back.graph(), "reshape.shape");
  std::vector<std::int64_t> dims(4);
  ASSERT_EQ(shape.raw_data().size(), 32U);
  std::memcpy(dims.data(), shape.raw_data().data(), 32);
  EXPECT_THAT(dims, ElementsAre(-1, 2, 3, 12));
}

TEST(OnnxExportOperators, CoversWhatInferenceMayUse) {
  const Tensor weight = Tensor::full({8, 3, 3, 6}, 0.1, DType::f32, {}), bias = Tensor::full({8}, 1.0, DType::f32, {}),
               factor = Tensor::full({1}, 2.0, DType::f32, {}),
               square_matrix = Tensor::full({8, 8}, 0.5, DType::f32, {});
  const auto model = exported(
      [&](const Tensor& x) {
        const Tensor joined = concatenate({x, square(x), average_pool(x, {3, 3, 1, 1, 1, 1}), scale(x, 2.0)}, 3);
        const Tensor y = relu6(conv2d(joined, weight, bias, {.pad_h = 1, .pad_w = 0, .groups = 2}));
        const Tensor z = global_average_pool(adaptive_average_pool(scale_by(y, factor), 2, 2));
        return log_softmax(softmax(l2_normalize(add(matmul(z, square_matrix, false, true), z), 0.01)));
      },
      {4, 6, 3}, {}, {{"odd.weight", weight}, {"odd.bias", bias}});
  expect_sound(model.graph());
  EXPECT_EQ(operators(model.graph()), (std::map<std::string, int>{{"Mul", 3},
                                                                  {"AveragePool", 2},
                                                                  {"Concat", 1},
                                                                  {"Conv", 1},
                                                                  {"Clip", 2},
                                                                  {"GlobalAveragePool", 1},
                                                                  {"Flatten", 1},
                                                                  {"Gemm", 1},
                                                                  {"Add", 1},
                                                                  {"ReduceL2", 1},
                                                                  {"Div", 1},
                                                                  {"Softmax", 1},
                                                                  {"LogSoftmax", 1}}));
  for (const auto& node : model.graph().node()) {
    if (node.op_type() == "Conv") {
      EXPECT_EQ(node.name(), "odd");
      EXPECT_THAT(ints(node, "pads"), ElementsAre(1, 0, 1, 0));
    }
    if (node.name() == "average_pool_1") {
      EXPECT_THAT(ints(node, "kernel_shape"), ElementsAre(2, 2));
    }
  }
}

TEST(OnnxExportOperators, RefusesWhatItCannotSay) {
  const auto refused = [](const Forward& forward) { return error_of([&] { exported(forward); }); };
  EXPECT_THAT(refused([](const Tensor& x) { return flatten(adaptive_average_pool(x, 3, 4)); }),
              HasSubstr("cells of different sizes, which ONNX has no operator for"));
  EXPECT_THAT(refused([](const Tensor& x) {
                return Tensor::zeros({x.dim(0), 9}, x.dtype(), {});
              }),
              HasSubstr("the logits are a filled tensor"));
  EXPECT_THAT(refused([](const Tensor& x) { return relu(x); }), HasSubstr("not logits"));
  EXPECT_THAT(refused([](const Tensor& x) { return flatten(x.clone()); }), HasSubstr("does not record itself"));
  EXPECT_THAT(refused([](const Tensor& x) { return flatten(add(x, Tensor::zeros(x.shape(), x.dtype(), {}))); }),
              HasSubstr("add: a filled tensor can be exported"));
  EXPECT_THAT(refused([](const Tensor& x) { return flatten(x.dim(0) == 1 ? x : relu(x)); }),
              HasSubstr("has 1 steps for one image and 2 for two"));
  EXPECT_THAT(refused([](const Tensor& x) { return flatten(x.dim(0) == 1 ? scale(x, 1.0) : relu(x)); }),
              HasSubstr("scale: step 1 of the forward pass is another for another batch"));
  EXPECT_THAT(refused([](const Tensor& x) { return cast(cast(flatten(x), DType::bf16), DType::f32); }),
              HasSubstr("cast: bf16 [1, 72] cannot be exported to ONNX"));
  const Tensor map = Tensor::full({1, 4, 6, 3}, 1.0, DType::f32, {});
  EXPECT_THAT(refused([&](const Tensor& x) {
                return flatten(concatenate({x, reshape(map, {1, 4, 6, 3})}, 0));
              }),
              HasSubstr("is another for another batch"));
}

TEST(OnnxExportOperators, RoundsToTheNearestHalf) {
  const auto widened = [](std::uint16_t half) {
    std::vector<std::byte> bytes(2);
    std::memcpy(bytes.data(), &half, 2);
    float value;
    std::memcpy(&value, widen_half(bytes).data(), 4);
    return value;
  };
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = widened(half), next = bits + 1 < 0x7c00 ? widened(half + 1) : 65536.0F;
    const float middle = value + (next - value) / 2;  // exact
    ASSERT_EQ(to_half(value), half);
    ASSERT_EQ(to_half(-value), half | 0x8000);
    ASSERT_EQ(to_half(middle), bits % 2 == 0 ? half : half + 1) << middle;
    ASSERT_EQ(to_half(std::nextafter(middle, 0.0F)), half) << middle;
    ASSERT_EQ(to_half(std::nextafter(middle, next)), half + 1) << middle;
  }
  EXPECT_EQ(to_half(1e30F), 0x7c00);
  EXPECT_EQ(to_half(-INFINITY), 0xfc00);
  EXPECT_EQ(to_half(NAN) & 0x7c00, 0x7c00);
  EXPECT_NE(to_half(NAN) & 0x03ff, 0);
}

}  // namespace
}  // namespace retort
