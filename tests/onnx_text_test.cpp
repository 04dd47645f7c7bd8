// Text in ONNX files is UTF-8: what is not is refused when one is written, and harmless when one is read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onnx_export.h"
#include "engine/ops.h"
#include "models/onnx_model.h"
#include "tests/support/files.h"
#include "tests/support/onnx_builder.h"

namespace retort {
namespace {

using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

std::string written(const std::map<std::string, std::string>& metadata, const std::string& layer = "fc") {
  const Tensor weight = Tensor::full({2, 12}, 1.0, DType::f32, {});
  OnnxExportOptions options;
  options.metadata = metadata;
  return onnx_model([&](const Tensor& x) { return linear(flatten(x), weight, Tensor()); }, {2, 2, 3},
                    {{layer + ".weight", weight}}, options);
}

TEST(OnnxText, IsUtf8WhereItIsWritten) {
  const OnnxGraph graph = parse_onnx(written({{"class_names", "Käse\n猫"}}, "Schicht_ä"), "m.onnx");
  EXPECT_EQ(graph.metadata.at("class_names"), "Käse\n猫");
  EXPECT_EQ(graph.initializers.count("Schicht_ä.weight"), 1U);
  for (const char* wrong : {"K\xe4se", "\xff", "\xc3", "\xed\xa0\x80", "\xc0\xaf"}) {
    const std::string names = std::string("cat\n") + wrong;
    EXPECT_THAT(error_of([&] {
                  written({{"class_names", names}});
                }),
                AllOf(HasSubstr("\"class_names\""), HasSubstr("not UTF-8"), testing::Not(HasSubstr("cat"))));
    EXPECT_THAT(error_of([&] { written({{wrong, "cat"}}); }), HasSubstr("not UTF-8"));
    EXPECT_THAT(error_of([&] { written({}, wrong); }), HasSubstr("not UTF-8"));
  }
}

TEST(OnnxText, IsWhateverItIsWhereItIsRead) {
  const std::string odd = "b\xe4\xff\x1b[31m";
  test::OnnxBuilder b;
  b.input(odd, {-1, 3, 2, 2});
  auto& entry = *b.model.add_metadata_props();
  entry.set_key("class_names");
  entry.set_value(odd + "\nbee");
  b.node("GlobalAveragePool", {odd}, {odd + "1"});
  b.node("Flatten", {odd + "1"}, {odd + "2"});
  b.weights(odd + "3", {3, 2}, {1, 2, 3, 4, 5, 6});
  b.node("MatMul", {odd + "2", odd + "3"}, {odd + "4"});
  b.output(odd + "4");
  const OnnxModel model(parse_onnx(b.bytes(), "m.onnx"), {});
  EXPECT_EQ(model.metadata().at("class_names"), odd + "\nbee");
  EXPECT_EQ(model.parameters().parameters().at(0)->name, odd + "3");
  EXPECT_EQ(model.forward(Tensor::full({1, 2, 2, 3}, 1.0, DType::f32, {}), {}, {odd + "2"}).logits.to_host<float>(),
            (std::vector<float>{9, 12}));
  b.node("Foo", {odd + "4"}, {odd + "5"});
  b.graph().mutable_output(0)->set_name(odd + "5");
  EXPECT_THAT(error_of([&] { OnnxModel(parse_onnx(b.bytes(), "m.onnx"), {}); }), HasSubstr("Foo"));
}

}  // namespace
}  // namespace retort
