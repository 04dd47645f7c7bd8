// ONNX files: every type of weights, and what is refused, in one line that says why.
#include "engine/onnx_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/files.h"
#include "tests/support/onnx_builder.h"

namespace retort {
namespace {

using ::onnx::TensorProto;
using test::error_of;
using test::OnnxBuilder;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// x [1, 2] + w -> y
OnnxBuilder sum() {
  OnnxBuilder b;
  b.input("x", {1, 2});
  b.weights("w", {2}, {1, 2});
  b.node("Add", {"x", "w"}, {"y"});
  b.output("y");
  return b;
}

std::string refusal(const OnnxBuilder& b) {
  const std::string error = error_of([&] { parse_onnx(b.bytes(), "m.onnx"); });
  EXPECT_THAT(error, StartsWith("m.onnx: "));
  return error;
}

TensorProto& weights_of(OnnxBuilder& b) {
  return *b.graph().mutable_initializer(0);
}

TEST(OnnxFile, HoldsTheGraph) {
  OnnxBuilder b = sum();
  auto& entry = *b.model.add_metadata_props();
  entry.set_key("class_names");
  entry.set_value("cat\ndog");
  const OnnxGraph graph = parse_onnx(b.bytes(), "m.onnx");
  EXPECT_EQ(graph.opset, 17);
  ASSERT_EQ(graph.nodes.size(), 1U);
  EXPECT_EQ(graph.nodes[0].op, "Add");
  EXPECT_THAT(graph.nodes[0].inputs, ElementsAre("x", "w"));
  ASSERT_EQ(graph.inputs.size(), 1U);
  EXPECT_EQ(graph.inputs[0].dims[1], 2);
  EXPECT_THAT(graph.initializers.at("w")->floats, ElementsAre(1, 2));
  EXPECT_EQ(graph.metadata.at("class_names"), "cat\ndog");
}

TEST(OnnxFile, ReadsEveryNumberType) {
  const auto read = [](int type, const std::string& raw) {
    OnnxBuilder b = sum();
    TensorProto& w = weights_of(b);
    w.set_data_type(type);
    w.clear_float_data();
    w.set_raw_data(raw);
    return *parse_onnx(b.bytes(), "m.onnx").initializers.at("w");
  };
  using namespace std::string_literals;
  EXPECT_THAT(read(TensorProto::FLOAT16, "\x00\x3c\x00\xc1"s).floats, ElementsAre(1, -2.5));
  EXPECT_THAT(read(TensorProto::BFLOAT16, "\x80\x3f\x20\xc0"s).floats, ElementsAre(1, -2.5));
  EXPECT_THAT(read(TensorProto::DOUBLE, "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\x04\xc0"s).floats, ElementsAre(1, -2.5));
  EXPECT_THAT(read(TensorProto::INT64, "\1\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"s).integers,
              ElementsAre(1, -1));
  EXPECT_THAT(read(TensorProto::INT32, "\1\0\0\0\xff\xff\xff\xff"s).integers, ElementsAre(1, -1));
  EXPECT_THAT(read(TensorProto::INT8, "\1\xff"s).integers, ElementsAre(1, -1));
  EXPECT_THAT(read(TensorProto::UINT8, "\1\xff"s).integers, ElementsAre(1, 255));
  EXPECT_THAT(read(TensorProto::BOOL, "\1\0"s).integers, ElementsAre(1, 0));
}

TEST(OnnxFile, RefusesWhatIsNoModel) {
  EXPECT_THAT(error_of([] { parse_onnx("not an ONNX file", "m.onnx"); }),
              HasSubstr("m.onnx: is not a whole ONNX file"));
  EXPECT_THAT(error_of([] { parse_onnx("", "m.onnx"); }), HasSubstr("holds no graph"));
  const std::string whole = sum().bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    error_of([&] { parse_onnx(whole.substr(0, size), "m.onnx"); });  // one line, whatever is cut off
  }
}

TEST(OnnxFile, RefusesSizesThatDoNotFit) {
  OnnxBuilder b = sum();
  weights_of(b).set_dims(0, 3);
  EXPECT_THAT(refusal(b), HasSubstr("2 values for the extents [3]"));
  weights_of(b).set_dims(0, -1);
  EXPECT_THAT(refusal(b), HasSubstr("not possible"));
  weights_of(b).set_dims(0, INT64_MAX);
  weights_of(b).add_dims(INT64_MAX);
  EXPECT_THAT(refusal(b), HasSubstr("too large"));
  weights_of(b).set_dims(1, 0);
  EXPECT_THAT(refusal(b), HasSubstr("too large"));
  b = sum();
  weights_of(b).set_raw_data("12345678");
  EXPECT_THAT(refusal(b), HasSubstr("there twice"));
  weights_of(b).clear_float_data();
  EXPECT_EQ(parse_onnx(b.bytes(), "m.onnx").initializers.at("w")->numel(), 2);
  weights_of(b).set_raw_data("1234567");
  EXPECT_THAT(refusal(b), HasSubstr("7 bytes of data"));
  b = sum();
  weights_of(b).set_data_type(TensorProto::STRING);
  EXPECT_THAT(refusal(b), HasSubstr("data type 8"));
}

TEST(OnnxFile, RefusesGraphsThatDoNotHold) {
  OnnxBuilder b = sum();
  b.node("Relu", {"z"}, {"q"});
  EXPECT_THAT(refusal(b), HasSubstr("node \"q\": reads \"z\", which nothing makes"));
  b.node("Relu", {"q"}, {"z"});
  EXPECT_THAT(refusal(b), HasSubstr("without a cycle"));
  b = sum();
  b.node("Relu", {"x"}, {"y"});
  EXPECT_THAT(refusal(b), HasSubstr("\"y\" is made twice"));
  b = sum();
  b.output("nothing");
  EXPECT_THAT(refusal(b), HasSubstr("the output \"nothing\" is made by no node"));
  b = sum();
  b.graph().clear_output();
  EXPECT_THAT(refusal(b), HasSubstr("has no outputs"));
  b = sum();
  b.weights("w", {1}, {1});
  EXPECT_THAT(refusal(b), HasSubstr("is there twice"));
  b = sum();
  b.model.clear_opset_import();
  EXPECT_THAT(refusal(b), HasSubstr("which version"));
}

TEST(OnnxFile, ReadsWeightsFromItsOwnFolderOnly) {
  const TemporaryFolder folder;
  folder.write("weights", std::string(4, 'x') + std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  const auto with = [&](const std::string& location, const std::string& offset, const std::string& length) {
    OnnxBuilder b = sum();
    TensorProto& w = weights_of(b);
    w.clear_float_data();
    w.set_data_location(TensorProto::EXTERNAL);
    const std::pair<const char*, std::string> entries[] = {
        {"location", location}, {"offset", offset}, {"length", length}};
    for (const auto& [key, value] : entries) {
      auto& entry = *w.add_external_data();
      entry.set_key(key);
      entry.set_value(value);
    }
    return folder.write("m.onnx", b.bytes());
  };
  EXPECT_THAT(read_onnx_file(with("weights", "4", "8")).initializers.at("w")->floats, ElementsAre(1, 2));
  const auto refused = [&](const std::string& location, const std::string& offset, const std::string& length) {
    const std::string path = with(location, offset, length);
    return error_of([&] { read_onnx_file(path); });
  };
  for (const char* location : {"../weights", "/etc/passwd", "", ".", "..", "a\\b", "sub/../weights", "sub/"}) {
    EXPECT_THAT(refused(location, "4", "8"), HasSubstr("only files in the model's own folder are read")) << location;
  }
  EXPECT_THAT(refused("absent", "4", "8"), HasSubstr("no such file"));
  EXPECT_THAT(refused("weights", "8", "8"), HasSubstr("needs bytes 8 to 16"));
  EXPECT_THAT(refused("weights", "4", "12"), HasSubstr("12 bytes of external data"));
  EXPECT_THAT(refused("weights", "-4", "8"), HasSubstr("external data at \"-4\""));
  EXPECT_THAT(refused("weights", "99999999999999999999", "8"), HasSubstr("external data at"));
  const std::string bytes = test::read_file(with("weights", "4", "8"));
  EXPECT_THAT(error_of([&] { parse_onnx(bytes, "m.onnx"); }), HasSubstr("in another file"));
}

TEST(OnnxFile, IsToldByItsFirstBytes) {
  const TemporaryFolder folder;
  EXPECT_TRUE(is_onnx_file(folder.write("model", sum().bytes())));
  EXPECT_FALSE(is_onnx_file(folder.write("safetensors", std::string("\x08\x03\0\0\0\0\0\0{}", 10))));
  EXPECT_FALSE(is_onnx_file(folder.write("zip", "PK\3\4")));
  EXPECT_FALSE(is_onnx_file(folder.write("empty", "")));
  EXPECT_FALSE(is_onnx_file(folder.path()));
}

}  // namespace
}  // namespace retort
