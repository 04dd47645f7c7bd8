// What the logits of a data set say about a classifier: which classes it confuses, and whether its confidence is worth
// believing.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace retort {

inline constexpr int kCalibrationBins = 15;

// Samples whose confidence - the largest probability of the softmax - lies in one interval of equal width.
struct CalibrationBin {
  std::int64_t samples = 0;
  double confidence = 0;  // means over the samples
  double accuracy = 0;
};

struct ClassificationReport {
  std::int64_t classes = 0, samples = 0;
  std::vector<std::int64_t> confusion;  // [label, predicted]: the class of the largest logit, of equals the first
  std::array<CalibrationBin, kCalibrationBins> bins;  // bin k holds confidences in (k / 15, (k + 1) / 15]
  // Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3: the mean over samples of
  // |accuracy - confidence| of their bin.
  double calibration_error = 0;

  std::int64_t count(std::int64_t label, std::int64_t predicted) const;
  std::int64_t images_of(std::int64_t label) const;
  std::int64_t predictions_of(std::int64_t predicted) const;
  double accuracy_of(std::int64_t label) const;  // a fraction; 0 where it has no images
};

// logits [samples, classes] row by row, a label below `classes` for each row.
ClassificationReport classification_report(std::span<const float> logits, std::span<const std::int32_t> labels,
                                           std::int64_t classes);

// One line a class: class, images, right, accuracy (recall), predicted, precision; fractions.
std::string per_class_csv(const ClassificationReport& report, const std::vector<std::string>& class_names);
// The matrix with the names of the predicted classes above it and those of the labels before each row.
std::string confusion_csv(const ClassificationReport& report, const std::vector<std::string>& class_names);

}  // namespace retort
