// An ONNX file where any other file of a classifier may stand: what teachers and programs take from it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "distill/classifier.h"
#include "distill/export.h"
#include "tests/support/files.h"
#include "tests/support/onnx_builder.h"

namespace retort {
namespace {

using test::OnnxBuilder;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

OnnxBuilder two_classes() {
  OnnxBuilder b;
  b.input("image", {-1, 3, 4, 6});
  b.node("GlobalAveragePool", {"image"}, {"mean"});
  b.node("Flatten", {"mean"}, {"flat"});
  b.weights("fc.w", {3, 2}, {1, 2, 3, 4, 5, 6});
  b.node("MatMul", {"flat", "fc.w"}, {"fc"});
  b.node("Softmax", {"fc"}, {"probabilities"});
  b.output("probabilities");
  return b;
}

Classifier load(const OnnxBuilder& b, std::int64_t classes = 0) {
  const TemporaryFolder folder;
  ClassifierOptions options;
  options.where = "[[teacher]] 1";
  options.path = folder.write("network", b.bytes());  // told by its bytes, not by its name
  options.classes = classes;
  return load_classifier(options);
}

TEST(OnnxTeacher, NeedsNothingElse) {
  OnnxBuilder b = two_classes();
  for (const auto& [key, value] : {std::pair{"normalize_mean", "0.5 0.25 0.125"},
                                   {"normalize_std", "0.5 1 2"},
                                   {"class_names", "ape\nbee"},
                                   {"input_size", "99 99"}}) {
    auto& entry = *b.model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }
  const Classifier classifier = load(b);
  EXPECT_EQ(classifier.model->spec().classes, 2);
  EXPECT_EQ(classifier.height, 4);  // what the graph demands counts before the metadata
  EXPECT_EQ(classifier.width, 6);
  EXPECT_THAT(classifier.class_names, ElementsAre("ape", "bee"));
  ASSERT_TRUE(classifier.normalization);
  EXPECT_EQ(classifier.normalization->std[2], 2);
  EXPECT_THAT(classifier.note, HasSubstr("Softmax"));
  const Tensor ones = Tensor::full({2, 4, 6, 3}, 1.0, DType::f32, {});
  EXPECT_THAT(classifier.model->forward(ones, {}).logits.to_host<float>(), ElementsAre(9, 12, 9, 12));
}

TEST(OnnxTeacher, MustTellTheStudentsClassesApart) {
  EXPECT_FALSE(load(two_classes(), 2).normalization);
  EXPECT_THAT(test::error_of([] { load(two_classes(), 3); }),
              HasSubstr("tells 2 classes apart, the student 3; they must be the same"));
}

TEST(OnnxTeacher, IsNotExportedAgain) {
  for (const auto& write : {export_onnx, export_safetensors}) {
    EXPECT_THAT(test::error_of([&] { write(load(two_classes()), "again", {}); }), HasSubstr("is an ONNX file already"));
  }
}

}  // namespace
}  // namespace retort
