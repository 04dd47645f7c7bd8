// What is counted over logits, by hand; multiply-adds against published figures.
#include "distill/classification_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "data/confusion_picture.h"
#include "data/image_file.h"
#include "distill/cost.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two classes; the first has probability p.
void add(std::vector<float>& logits, std::vector<std::int32_t>& labels, double p, std::int32_t label) {
  logits.push_back(static_cast<float>(std::log(p)));
  logits.push_back(static_cast<float>(std::log(1 - p)));
  labels.push_back(label);
}

TEST(ClassificationReport, CountsConfusionsAndCalibration) {
  std::vector<float> logits;
  std::vector<std::int32_t> labels;
  // Bin 14 is (0.9333, 1]: confidences 0.95, 0.97 and 0.99, two of three right.
  add(logits, labels, 0.95, 0);
  add(logits, labels, 0.97, 0);
  add(logits, labels, 0.01, 0);
  // Bin 9 is (0.6, 0.6667]: 0.61 and 0.65, both right.
  add(logits, labels, 0.39, 1);
  add(logits, labels, 0.35, 1);
  const ClassificationReport r = classification_report(logits, labels, 2);
  EXPECT_THAT(r.confusion, ElementsAre(2, 1, 0, 2));
  EXPECT_EQ(r.images_of(0), 3);
  EXPECT_EQ(r.predictions_of(1), 3);
  EXPECT_DOUBLE_EQ(r.accuracy_of(0), 2.0 / 3);
  EXPECT_EQ(r.bins[14].samples, 3);
  EXPECT_EQ(r.bins[9].samples, 2);
  EXPECT_NEAR(r.bins[14].confidence, 0.97, 1e-6);
  EXPECT_NEAR(r.bins[14].accuracy, 2.0 / 3, 1e-12);
  EXPECT_NEAR(r.calibration_error, 0.6 * (0.97 - 2.0 / 3) + 0.4 * (1 - 0.63), 1e-6);
}

TEST(ClassificationReport, EdgesOfBinsAndTies) {
  // Of equal logits the first wins; with a confidence of exactly 1/2 this is bin 7, (7/15, 8/15].
  const ClassificationReport tie = classification_report(std::vector<float>{3, 3}, std::vector<std::int32_t>{1}, 2);
  EXPECT_EQ(tie.count(1, 0), 1);
  EXPECT_EQ(tie.bins[7].samples, 1);
  // A confidence of 1 belongs to the last bin; one of exactly 1/5 = 3/15 to the bin that ends there.
  const ClassificationReport sure =
      classification_report(std::vector<float>{200, -200}, std::vector<std::int32_t>{0}, 2);
  EXPECT_EQ(sure.bins[14].samples, 1);
  EXPECT_EQ(sure.calibration_error, 0);
  const ClassificationReport fifth =
      classification_report(std::vector<float>(5, 1.0f), std::vector<std::int32_t>{0}, 5);
  EXPECT_EQ(fifth.bins[2].samples, 1);
  const ClassificationReport none = classification_report({}, {}, 3);
  EXPECT_EQ(none.calibration_error, 0);
  EXPECT_EQ(none.accuracy_of(1), 0);
}

TEST(ClassificationReport, RefusesWhatDoesNotFit) {
  const std::vector<std::int32_t> label{2};
  EXPECT_THAT(error_of([&] { classification_report(std::vector<float>{1, 2}, label, 2); }), HasSubstr("label 2"));
  EXPECT_THAT(error_of([&] { classification_report(std::vector<float>{1, 2, 3}, label, 2); }), HasSubstr("3 logits"));
  EXPECT_THAT(error_of([&] {
                classification_report(std::vector<float>{1, 2, NAN}, label, 3);
              }),
              HasSubstr("not finite"));
}

TEST(ClassificationReport, CsvQuotesNames) {
  const ClassificationReport r =
      classification_report(std::vector<float>{1, 0, 1, 0}, std::vector<std::int32_t>{0, 0}, 2);
  const std::vector<std::string> names{"black, \"small\"", "cat"};
  EXPECT_EQ(confusion_csv(r, names),
            "label \\ predicted,\"black, \"\"small\"\"\",cat\n\"black, \"\"small\"\"\",2,0\ncat,0,0\n");
  EXPECT_EQ(per_class_csv(r, names),
            "class,images,right,accuracy,predicted,precision\n\"black, \"\"small\"\"\",2,2,1.000000,2,1.000000\n"
            "cat,0,0,,0,\n");
}

TEST(ConfusionPicture, DrawsAnyNumberOfClasses) {
  const TemporaryFolder folder;
  for (const int classes : {1, 2, 25, 100, 1000}) {
    ConfusionPicture picture;
    picture.title = "a network on a set";
    picture.class_names.assign(static_cast<std::size_t>(classes), "a class");
    picture.counts.assign(static_cast<std::size_t>(classes) * static_cast<std::size_t>(classes), 0);
    picture.counts[0] = 7;
    write_png(picture, folder / "confusion.png");
    const Image image = read_image_file(folder / "confusion.png");
    EXPECT_GE(image.width, classes) << classes;
    EXPECT_LT(image.width, 1300) << classes;
    // The first cell is all right: somewhere it has the full green.
    bool green = false;
    for (int y = 0; y < image.height; ++y) {
      for (int x = 0; x < image.width; ++x) {
        green = green || (image.at(y, x)[0] == 64 && image.at(y, x)[1] == 196 && image.at(y, x)[2] == 140);
      }
    }
    EXPECT_TRUE(green) << classes;
  }
}

std::int64_t counted_work(const std::string& arch, const std::string& stem, const std::string& shortcut,
                          std::int64_t classes, std::int64_t side, bool fold) {
  ModelSpec spec;
  spec.arch = arch;
  spec.stem = stem;
  spec.shortcut = shortcut;
  spec.classes = classes;
  const auto model = make_model(spec);
  model->parameters().materialize({}, DType::f32, 1);
  if (fold) model->fold();
  return multiply_adds(*model, side, side);
}

TEST(MultiplyAdds, EqualPublishedFigures) {
  // torchvision's tables: 1.81 and 4.09 "GFLOPS". He's resnet20: 40.55 M, and 40.81 M with projections.
  EXPECT_EQ(counted_work("resnet18", "imagenet", "projection", 1000, 224, false), 1'814'073'344);
  EXPECT_EQ(counted_work("resnet50", "imagenet", "projection", 1000, 224, true), 4'089'184'256);
  EXPECT_EQ(counted_work("resnet20", "cifar", "projection", 10, 32, true), 40'813'184);
  EXPECT_EQ(counted_work("resnet20", "cifar", "pad", 10, 32, false), 40'551'040);
}

TEST(MeasureSpeed, TriesBatchesWithinItsTime) {
  ModelSpec spec;
  spec.arch = "resnet8";
  const auto model = make_model(spec);
  model->parameters().materialize({}, DType::f32, 1);
  std::int64_t largest = 0, passes = 0;
  const LogitsOf network = [&](const Tensor& input) {
    largest = std::max(largest, input.dim(0));
    ++passes;
    return model->forward(input, {}).logits;
  };
  const Speed speed = measure_speed(network, {8, 8}, DType::f32, {}, 0.5);
  EXPECT_GE(speed.latency_passes, 10);
  EXPECT_GT(speed.latency_median, 0);
  EXPECT_GE(speed.latency_p95, speed.latency_median);
  EXPECT_EQ(speed.batches.front().batch, 1);
  EXPECT_EQ(speed.batches.back().batch, largest);
  EXPECT_GT(speed.batches.front().peak_bytes, 0u);
  for (std::size_t k = 1; k < speed.batches.size(); ++k) {
    EXPECT_EQ(speed.batches[k].batch, 2 * speed.batches[k - 1].batch);
    EXPECT_GT(speed.batches[k].peak_bytes, speed.batches[k - 1].peak_bytes);
  }
  for (const BatchSpeed& b : speed.batches) EXPECT_LE(b.images_per_second, speed.best().images_per_second);
  EXPECT_GE(passes, 13);
}

}  // namespace
}  // namespace retort
