// What surrounds a network in an ONNX file: inputs that nobody reads, the order of the axes, batches, and weights that
// lie in other files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "distill/cost.h"
#include "models/onnx_model.h"
#include "tests/support/files.h"
#include "tests/support/onnx_builder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

using ::onnx::TensorProto;
using test::error_of;
using test::OnnxBuilder;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using Integers = OnnxBuilder::Integers;

std::vector<float> values(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<float> all(static_cast<std::size_t>(count));
  for (float& v : all) v = draw(engine);
  return all;
}

// A convolution, a pool, and a linear layer whose input `flatten` makes of "mean" [N, 4, 1, 1].
template <typename Flatten>
OnnxBuilder network(const Integers& input, const std::string& images, Flatten flatten) {
  OnnxBuilder b;
  b.input("image", input);
  if (images != "image") b.node("Transpose", {"image"}, {images}).list("perm", {0, 3, 1, 2});
  b.weights("filters", {4, 3, 3, 3}, values(108, 1));
  b.node("Conv", {images, "filters"}, {"conv"}).list("pads", {1, 1, 1, 1});
  b.node("Relu", {"conv"}, {"relu"});
  b.node("GlobalAveragePool", {"relu"}, {"mean"});
  flatten(b);
  b.weights("fc.w", {5, 4}, values(20, 2));
  b.node("Gemm", {"flat", "fc.w"}, {"logits"}).set("transB", std::int64_t{1});
  b.output("logits");
  return b;
}

OnnxBuilder network(const Integers& input, const std::string& images = "image") {
  return network(input, images, [](OnnxBuilder& b) { b.node("Flatten", {"mean"}, {"flat"}); });
}

// Brought into rows by a Reshape to this shape.
OnnxBuilder reshaping_network(const Integers& input, const Integers& shape) {
  return network(input, "image", [&](OnnxBuilder& b) {
    b.integers("shape", shape);
    b.node("Reshape", {"mean", "shape"}, {"flat"});
  });
}

std::unique_ptr<OnnxModel> model_of(const OnnxBuilder& b) {
  return std::make_unique<OnnxModel>(parse_onnx(b.bytes(), "m.onnx"), OnnxModelOptions{});
}

Tensor images(std::int64_t n, std::int64_t height = 6, std::int64_t width = 8) {
  return Tensor::from(values(n * height * width * 3, 3), {n, height, width, 3});
}

void expect_close(const Tensor& found, const Tensor& expected) {
  ASSERT_EQ(found.shape(), expected.shape());
  const std::vector<float> x = found.to_host<float>(), y = expected.to_host<float>();
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], 1e-5 * (1 + std::abs(y[i]))) << i;
}

Tensor expected_of(const Tensor& x) {
  return model_of(network({-1, 3, -1, -1}))->forward(x, {}).logits;
}

TEST(OnnxInput, IgnoresInputsThatNothingReads) {
  for (const int type : {TensorProto::BOOL, TensorProto::FLOAT, TensorProto::STRING, TensorProto::INT64}) {
    OnnxBuilder b = network({-1, 3, 6, 8});
    b.input("learning_phase", {});
    b.graph().mutable_input(1)->mutable_type()->mutable_tensor_type()->set_elem_type(type);
    b.input("mask", {-1, 3, 6, 8});
    b.graph().mutable_input()->SwapElements(0, 2);  // in whatever order
    b.graph().add_input()->set_name("of_no_type");
    expect_close(model_of(b)->forward(images(2), {}).logits, expected_of(images(2)));
  }
  // Nor what only another output needs, in operators that are not read.
  OnnxBuilder b = network({-1, 3, 6, 8});
  b.input("text", {-1});
  b.node("StringSplit", {"text"}, {"words"});
  b.output("words");
  expect_close(model_of(b)->forward(images(2), {}).logits, expected_of(images(2)));
}

TEST(OnnxInput, NeedsOneThatTheLogitsDependOn) {
  OnnxBuilder b;
  b.input("image", {-1, 3, 6, 8});
  b.weights("w", {1, 5}, values(5, 1));
  b.node("Relu", {"w"}, {"logits"});
  b.output("logits");
  EXPECT_THAT(error_of([&] { model_of(b); }), HasSubstr("depend on none of its inputs"));
}

TEST(OnnxInput, TakesEitherOrderOfTheAxes) {
  const Tensor expected = expected_of(images(2));
  for (const Integers& dims : {Integers{-1, 6, 8, 3}, {-1, -1, -1, 3}, {2, 6, 8, 3}, {-1, -1, -1, -1}, {1, 6, 8, -1}}) {
    const auto model = model_of(network(dims, "planes"));
    expect_close(model->forward(images(2), {}).logits, expected);
    EXPECT_EQ(model->height(), dims[1] > 0 ? 6 : 0);
    EXPECT_EQ(model->width(), dims[2] > 0 ? 8 : 0);
    EXPECT_EQ(model->forward(images(2), {}, {"relu"}).taps.at("relu").shape(), (Shape{2, 6, 8, 4}));
  }
  for (const Integers& dims : {Integers{-1, 3, 6, 8}, {-1, 3, -1, -1}, {-1, -1, -1, -1}, {2, -1, 6, 8}}) {
    expect_close(model_of(network(dims))->forward(images(2), {}).logits, expected);
  }
  // Three rows, columns and channels: the first order that the graph allows.
  expect_close(model_of(network({-1, 3, 3, 3}))->forward(images(2, 3, 3), {}).logits, expected_of(images(2, 3, 3)));
  // A graph without any extents, too.
  OnnxBuilder b = network({-1, -1, -1, -1}, "planes");
  b.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  expect_close(model_of(b)->forward(images(2), {}).logits, expected);
}

TEST(OnnxInput, SaysWhichOrdersOfAxesItKnows) {
  EXPECT_THAT(error_of([] { model_of(network({-1, 6, 8, 4})); }), HasSubstr("[N, 3, H, W] or [N, H, W, 3]"));
  OnnxBuilder b = network({-1, -1, -1, -1});
  b.graph().mutable_initializer(0)->set_dims(1, 9);
  b.graph().mutable_initializer(0)->set_dims(2, 1);
  EXPECT_THAT(error_of([&] { model_of(b); }),
              AllOf(StartsWith("m.onnx: node \"conv\""), HasSubstr("[N, 3, H, W] or [N, H, W, 3]")));
}

TEST(OnnxInput, TakesAnyBatch) {
  struct Case {
    Integers input, shape;
    std::int64_t at_once;
  };
  for (const Case& c : std::vector<Case>{{{1, 3, 6, 8}, {0, -1}, 1},
                                         {{1, 3, 6, 8}, {-1, 4}, 1},
                                         {{1, 3, 6, 8}, {1, -1}, 1},
                                         {{1, 3, 6, 8}, {1, 4}, 1},
                                         {{-1, 3, 6, 8}, {1, 4}, 1},
                                         {{3, 3, 6, 8}, {-1, 4}, 1},
                                         {{3, 3, 6, 8}, {3, 4}, 3},
                                         {{3, 3, 6, 8}, {3, -1}, 3}}) {
    SCOPED_TRACE(testing::PrintToString(c.input) + testing::PrintToString(c.shape));
    const auto model = model_of(reshaping_network(c.input, c.shape));
    EXPECT_EQ(model->images_at_once(), c.at_once);
    for (const std::int64_t n : {1, 2, 3, 7}) {
      const ModelOutput output = model->forward(images(n), {}, {"relu", "flat"});
      expect_close(output.logits, expected_of(images(n)));
      EXPECT_EQ(output.taps.at("relu").shape(), (Shape{n, 6, 8, 4}));
      EXPECT_EQ(output.taps.at("flat").shape(), (Shape{n, 4}));
    }
    const bool in_pieces = c.shape[0] > 0;
    EXPECT_EQ(model->note().find("at a time") != std::string::npos, in_pieces) << model->note();
    // 4 filters of 27 at 48 places.
    EXPECT_EQ(multiply_adds(*model, 6, 8), 4 * 27 * 48);
  }
}

// Exported for one image, the batch may slip into another axis and come back as if nothing had been.
TEST(OnnxInput, DoesNotMixImages) {
  OnnxBuilder b;
  b.input("image", {1, 3, 4, 4});
  b.integers("to_pairs", {1, 3, 2, -1});
  b.integers("to_rows", {-1, 48});
  b.node("Reshape", {"image", "to_pairs"}, {"pairs"});
  b.node("Transpose", {"pairs"}, {"turned"}).list("perm", {0, 2, 1, 3});
  b.node("Reshape", {"turned", "to_rows"}, {"flat"});
  b.weights("w", {48, 5}, values(240, 4));
  b.node("MatMul", {"flat", "w"}, {"logits"});
  b.output("logits");
  const auto model = model_of(b);
  const Tensor x = images(2, 4, 4);
  const Tensor both = model->forward(x, {}).logits;
  for (std::int64_t k = 0; k < 2; ++k) {
    expect_close(both.slice(5 * k, {1, 5}), model->forward(x.slice(48 * k, {1, 4, 4, 3}).clone(), {}).logits);
  }
}

class OnnxExternalData : public testing::Test {
 protected:
  // A model whose one initializer, two numbers, lies at `location`.
  std::string with(const std::string& location, const std::string& folder = "model") const {
    OnnxBuilder b;
    b.input("x", {1, 2});
    TensorProto& w = b.weights("w", {2}, {});
    w.set_data_location(TensorProto::EXTERNAL);
    auto& entry = *w.add_external_data();
    entry.set_key("location");
    entry.set_value(location);
    b.node("Add", {"x", "w"}, {"y"});
    b.output("y");
    fs::create_directories(fs::path(home_ / folder));
    return home_.write(folder + "/m.onnx", b.bytes());
  }
  void place(const std::string& name) const {
    fs::create_directories(fs::path(home_ / name).parent_path());
    home_.write(name, std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  }
  std::vector<float> read(const std::string& location) const {
    return read_onnx_file(with(location)).initializers.at("w")->floats;
  }
  std::string refusal(const std::string& location) const {
    const std::string path = with(location);
    const std::string error = error_of([&] { read_onnx_file(path); });
    EXPECT_THAT(error, StartsWith(path + ": initializer \"w\": "));
    return error;
  }

  TemporaryFolder home_;
};

TEST_F(OnnxExternalData, LiesInTheModelsFolderOrBelow) {
  place("model/w.bin");
  place("model/weights/deep/w.bin");
  for (const char* location : {"w.bin", "./w.bin", ".//./w.bin", "weights/deep/w.bin", "./weights/./deep/w.bin"}) {
    EXPECT_THAT(read(location), ElementsAre(1, 2)) << location;
  }
  fs::create_symlink("weights/deep/w.bin", home_ / "model/link.bin");
  fs::create_directory_symlink("weights", home_ / "model/linked");
  EXPECT_THAT(read("link.bin"), ElementsAre(1, 2));
  EXPECT_THAT(read("linked/deep/w.bin"), ElementsAre(1, 2));
  // The folder itself may be reached by a link.
  fs::create_directory_symlink("model", home_ / "another");
  EXPECT_THAT(read_onnx_file(home_ / "another/m.onnx").initializers.at("w")->floats, ElementsAre(1, 2));
}

TEST_F(OnnxExternalData, NeverLeavesTheModelsFolder) {
  place("w.bin");
  place("model/sub/w.bin");
  place("models/w.bin");  // its name begins like the model's folder
  for (const std::string& location :
       {std::string("../w.bin"), std::string("sub/../../w.bin"), std::string("sub/../sub/w.bin"), std::string(".."),
        std::string("sub/.."), home_ / "w.bin", home_ / "model/sub/w.bin", std::string("sub/"),
        std::string("sub/w.bin\0", 10)}) {
    EXPECT_THAT(refusal(location), HasSubstr("only files in the model's own folder are read")) << location;
  }
  with("w.bin");
  fs::create_symlink("../w.bin", home_ / "model/out.bin");
  fs::create_symlink(home_ / "models", home_ / "model/out");
  fs::create_symlink("out.bin", home_ / "model/sub.bin");
  for (const char* location : {"out.bin", "out/w.bin", "sub.bin"}) {
    EXPECT_THAT(refusal(location), HasSubstr("leads out of the model's own folder")) << location;
  }
}

TEST_F(OnnxExternalData, IsNamedWithTheModelWhereItIsLost) {
  EXPECT_THAT(refusal("w.bin"), AllOf(HasSubstr("\"" + home_ / "model/w.bin" + "\": no such file"),
                                      HasSubstr("bring it along with the model")));
  EXPECT_THAT(refusal("weights/w.bin"), HasSubstr("model/weights/w.bin\": no such file"));
  fs::create_directories(home_ / "model/weights");
  EXPECT_THAT(refusal("weights"), HasSubstr("is not a file"));
  home_.write("model/w.bin", "1234");
  EXPECT_THAT(refusal("w.bin"), AllOf(HasSubstr("needs bytes 0 to 8"), HasSubstr("cut off")));
}

}  // namespace
}  // namespace retort
