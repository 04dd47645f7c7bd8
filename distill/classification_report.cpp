#include "distill/classification_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "distill/text_table.h"
#include "kernels/error.h"

namespace retort {
namespace {

// The largest probability of the softmax.
double confidence_of(std::span<const float> row, std::size_t largest) {
  double sum = 0;
  for (const float v : row) sum += std::exp(static_cast<double>(v) - static_cast<double>(row[largest]));
  return 1 / sum;
}

}  // namespace

std::int64_t ClassificationReport::count(std::int64_t label, std::int64_t predicted) const {
  return confusion.at(static_cast<std::size_t>(label * classes + predicted));
}

std::int64_t ClassificationReport::images_of(std::int64_t label) const {
  std::int64_t sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += count(label, k);
  return sum;
}

std::int64_t ClassificationReport::predictions_of(std::int64_t predicted) const {
  std::int64_t sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += count(k, predicted);
  return sum;
}

double ClassificationReport::accuracy_of(std::int64_t label) const {
  const std::int64_t images = images_of(label);
  return images > 0 ? static_cast<double>(count(label, label)) / static_cast<double>(images) : 0;
}

ClassificationReport classification_report(std::span<const float> logits, std::span<const std::int32_t> labels,
                                           std::int64_t classes) {
  check(classes > 0 && logits.size() == labels.size() * static_cast<std::size_t>(classes),
        "classification_report: {} logits for {} samples of {} classes", logits.size(), labels.size(), classes);
  ClassificationReport report;
  report.classes = classes;
  report.samples = std::ssize(labels);
  report.confusion.assign(static_cast<std::size_t>(classes * classes), 0);
  for (std::size_t n = 0; n < labels.size(); ++n) {
    const auto row = logits.subspan(n * static_cast<std::size_t>(classes), static_cast<std::size_t>(classes));
    const std::int64_t label = labels[n];
    check(label >= 0 && label < classes, "classification_report: label {} of sample {} is not below {}", label, n,
          classes);
    const auto predicted = static_cast<std::int64_t>(std::max_element(row.begin(), row.end()) - row.begin());
    const double confidence = confidence_of(row, static_cast<std::size_t>(predicted));
    check(std::isfinite(confidence), "classification_report: the logits of sample {} are not finite", n);
    ++report.confusion[static_cast<std::size_t>(label * classes + predicted)];
    const int bin = static_cast<int>(std::ceil(confidence * kCalibrationBins)) - 1;
    CalibrationBin& b = report.bins[static_cast<std::size_t>(std::clamp(bin, 0, kCalibrationBins - 1))];
    ++b.samples;
    b.confidence += confidence;
    b.accuracy += predicted == label ? 1 : 0;
  }
  for (CalibrationBin& b : report.bins) {
    if (b.samples == 0) continue;
    report.calibration_error += std::abs(b.accuracy - b.confidence) / static_cast<double>(report.samples);
    b.confidence /= static_cast<double>(b.samples);
    b.accuracy /= static_cast<double>(b.samples);
  }
  return report;
}

std::string per_class_csv(const ClassificationReport& report, const std::vector<std::string>& class_names) {
  std::string text = "class,images,right,accuracy,predicted,precision\n";
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole > 0 ? fmt::format("{:.6f}", static_cast<double>(part) / static_cast<double>(whole)) : "";
  };
  for (std::int64_t k = 0; k < report.classes; ++k) {
    const std::int64_t right = report.count(k, k), images = report.images_of(k), predicted = report.predictions_of(k);
    text += fmt::format("{},{},{},{},{},{}\n", csv_field(class_names.at(static_cast<std::size_t>(k))), images, right,
                        share(right, images), predicted, share(right, predicted));
  }
  return text;
}

std::string confusion_csv(const ClassificationReport& report, const std::vector<std::string>& class_names) {
  std::string text = "label \\ predicted";
  for (std::int64_t k = 0; k < report.classes; ++k)
    text += "," + csv_field(class_names.at(static_cast<std::size_t>(k)));
  text += "\n";
  for (std::int64_t label = 0; label < report.classes; ++label) {
    text += csv_field(class_names[static_cast<std::size_t>(label)]);
    for (std::int64_t k = 0; k < report.classes; ++k) text += fmt::format(",{}", report.count(label, k));
    text += "\n";
  }
  return text;
}

}  // namespace retort
