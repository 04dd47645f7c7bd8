// An Evaluation as text, JSON and files.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "data/confusion_picture.h"
#include "distill/console.h"
#include "distill/evaluation.h"
#include "engine/atomic_file.h"
#include "engine/json_text.h"

namespace retort {
namespace {

constexpr std::size_t kShown = 5;          // classes and confusions in the table
constexpr std::size_t kSubject = 13;       // columns that a line's subject takes
constexpr std::int64_t kMostInJson = 100;  // classes of a matrix

std::string count_text(double n) {
  return n < 1e6   ? counted(static_cast<std::int64_t>(n))
         : n < 1e9 ? fmt::format("{:.1f} M", n / 1e6)
                   : fmt::format("{:.3f} G", n / 1e9);
}

std::string milliseconds(double seconds) {
  return fmt::format("{:.{}f} ms", 1e3 * seconds, seconds < 0.1 ? 2 : 0);
}

// The classes that have images, the one with the lowest accuracy first.
std::vector<std::int64_t> by_accuracy(const ClassificationReport& report) {
  std::vector<std::int64_t> classes;
  for (std::int64_t k = 0; k < report.classes; ++k) {
    if (report.images_of(k) > 0) classes.push_back(k);
  }
  std::vector<double> accuracy(static_cast<std::size_t>(report.classes));
  for (const std::int64_t k : classes) accuracy[static_cast<std::size_t>(k)] = report.accuracy_of(k);
  std::stable_sort(classes.begin(), classes.end(), [&](std::int64_t a, std::int64_t b) {
    return accuracy[static_cast<std::size_t>(a)] < accuracy[static_cast<std::size_t>(b)];
  });
  return classes;
}

struct Confusion {
  std::int64_t label, predicted, count;
};

std::vector<Confusion> worst_confusions(const ClassificationReport& report) {
  std::vector<Confusion> all;
  for (std::int64_t label = 0; label < report.classes; ++label) {
    for (std::int64_t k = 0; k < report.classes; ++k) {
      if (label != k && report.count(label, k) > 0) all.push_back({label, k, report.count(label, k)});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Confusion& a, const Confusion& b) { return a.count > b.count; });
  if (all.size() > kShown) all.resize(kShown);
  return all;
}

nlohmann::ordered_json speed_json(const Speed& speed) {
  nlohmann::ordered_json batches = nlohmann::ordered_json::array();
  for (const BatchSpeed& b : speed.batches) {
    batches.push_back({{"batch", b.batch}, {"images_per_second", b.images_per_second}, {"peak_bytes", b.peak_bytes}});
  }
  return {{"latency_median_seconds", speed.latency_median},
          {"latency_p95_seconds", speed.latency_p95},
          {"latency_passes", speed.latency_passes},
          {"best_batch", speed.best().batch},
          {"images_per_second", speed.best().images_per_second},
          {"peak_bytes", speed.best().peak_bytes},
          {"batches", batches}};
}

}  // namespace

std::string evaluation_table(const Evaluation& e, std::size_t width) {
  std::string text;
  const auto line = [&](const char* subject, const std::string& words) {
    text += folded(fmt::format("{:<{}}{}\n", subject, kSubject, printable(words)), width, kSubject);
  };
  const auto name = [&](std::int64_t k) { return e.class_names.at(static_cast<std::size_t>(k)); };
  line("network",
       fmt::format("{}, {} classes, {} parameters, {} multiply-adds at {}x{}", e.arch, e.report.classes,
                   counted(e.parameters), count_text(static_cast<double>(e.multiply_adds)), e.width, e.height));
  line("file", e.file);
  if (!e.note.empty()) line("note", e.note);
  line("data", fmt::format("{}, {} {} images", e.dataset, counted(e.metrics.samples), e.split));
  line("device", fmt::format("{}, {}", e.device, e.precision));
  line("top-1", fmt::format("{:.2f} %", 100 * e.metrics.top1));
  line("top-5", fmt::format("{:.2f} %", 100 * e.metrics.top5));
  line("loss", loss_text(e.metrics.loss));
  line("calibration",
       fmt::format("expected error {:.2f} % ({} bins)", 100 * e.report.calibration_error, kCalibrationBins));

  const std::vector<std::int64_t> classes = by_accuracy(e.report);
  const std::size_t shown = std::min(kShown, classes.size());
  std::vector<std::string> words;
  const auto accuracy = [&](std::int64_t k) {
    return fmt::format("{} {:.1f} %", name(k), 100 * e.report.accuracy_of(k));
  };
  std::transform(classes.begin(), classes.begin() + static_cast<std::ptrdiff_t>(shown), std::back_inserter(words),
                 accuracy);
  line("worst", fmt::format("{}", fmt::join(words, ", ")));
  words.clear();
  std::transform(classes.rbegin(), classes.rbegin() + static_cast<std::ptrdiff_t>(shown), std::back_inserter(words),
                 accuracy);
  line("best", fmt::format("{}", fmt::join(words, ", ")));
  words.clear();
  for (const Confusion& c : worst_confusions(e.report)) {
    words.push_back(fmt::format("{} taken for {} {}x", name(c.label), name(c.predicted), c.count));
  }
  if (!words.empty()) line("confused", fmt::format("{}", fmt::join(words, ", ")));
  if (!e.teacher_file.empty()) {
    line("teacher",
         fmt::format("{}, top-1 {:.2f} %, {}", e.teacher_arch, 100 * e.teacher_metrics.top1, e.teacher_file));
    line("", fmt::format("agreement {:.2f} %, mean |logit difference| {}", 100 * e.metrics.agreement,
                         loss_text(e.metrics.logit_difference)));
    if (!e.teacher_note.empty()) line("", "teacher: " + e.teacher_note);
  }
  if (!e.speed) return text;
  const Speed& s = *e.speed;
  line("latency", fmt::format("{} median, {} p95, one image ({} passes)", milliseconds(s.latency_median),
                              milliseconds(s.latency_p95), s.latency_passes));
  line("throughput",
       fmt::format("{} images/s at batch {} (best of {} to {})", count_text(std::round(s.best().images_per_second)),
                   s.best().batch, s.batches.front().batch, s.batches.back().batch));
  line("peak memory", fmt::format("{} at batch 1, {} at batch {}", bytes_text(s.batches.front().peak_bytes),
                                  bytes_text(s.best().peak_bytes), s.best().batch));
  return text;
}

nlohmann::ordered_json evaluation_json(const Evaluation& e) {
  nlohmann::ordered_json out{{"file", e.file},
                             {"arch", e.arch},
                             {"classes", e.report.classes},
                             {"parameters", e.parameters},
                             {"multiply_adds", e.multiply_adds},
                             {"input_size", {e.height, e.width}},
                             {"dataset", e.dataset},
                             {"split", e.split},
                             {"images", e.metrics.samples},
                             {"device", e.device},
                             {"precision", e.precision},
                             {"top1", e.metrics.top1},
                             {"top5", e.metrics.top5},
                             {"loss", e.metrics.loss},
                             {"expected_calibration_error", e.report.calibration_error}};
  for (const CalibrationBin& b : e.report.bins) {
    out["calibration_bins"].push_back({{"samples", b.samples}, {"confidence", b.confidence}, {"accuracy", b.accuracy}});
  }
  for (std::int64_t k = 0; k < e.report.classes; ++k) {
    nlohmann::ordered_json entry{{"name", e.class_names.at(static_cast<std::size_t>(k))},
                                 {"images", e.report.images_of(k)},
                                 {"right", e.report.count(k, k)},
                                 {"predicted", e.report.predictions_of(k)}};
    entry["accuracy"] = e.report.images_of(k) > 0 ? nlohmann::ordered_json(e.report.accuracy_of(k)) : nullptr;
    out["per_class"].push_back(entry);
  }
  if (e.report.classes <= kMostInJson) {
    for (std::int64_t k = 0; k < e.report.classes; ++k) {
      const auto begin = e.report.confusion.begin() + k * e.report.classes;
      out["confusion"].push_back(std::vector<std::int64_t>(begin, begin + e.report.classes));
    }
  }
  if (!e.note.empty()) out["note"] = e.note;
  if (!e.teacher_file.empty()) {
    out["teacher"] = {{"file", e.teacher_file},
                      {"arch", e.teacher_arch},
                      {"top1", e.teacher_metrics.top1},
                      {"top5", e.teacher_metrics.top5},
                      {"loss", e.teacher_metrics.loss},
                      {"agreement", e.metrics.agreement},
                      {"mean_logit_difference", e.metrics.logit_difference}};
    if (!e.teacher_note.empty()) out["teacher"]["note"] = e.teacher_note;
  }
  if (e.speed) out["speed"] = speed_json(*e.speed);
  return out;
}

void write_evaluation(const Evaluation& e, const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, "{}: cannot be made: {}", folder, error.message());
  const auto file = [&](const char* name) { return (fs::path(folder) / name).string(); };
  write_file_atomically(file("evaluation.json"), json_text(evaluation_json(e), 2) + "\n");
  write_file_atomically(file("per_class.csv"), per_class_csv(e.report, e.class_names));
  write_file_atomically(file("confusion.csv"), confusion_csv(e.report, e.class_names));
  write_png({fmt::format("{} on {} ({} {} images): top-1 {:.2f} %", e.arch, e.dataset, counted(e.metrics.samples),
                         e.split, 100 * e.metrics.top1),
             e.class_names, e.report.confusion},
            file("confusion.png"));
}

}  // namespace retort
