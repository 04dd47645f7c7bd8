#include "distill/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "distill/checkpoint_path.h"
#include "distill/console.h"
#include "distill/text_table.h"
#include "engine/project_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

std::vector<double> values_of(const std::vector<Metrics>& all, double Metrics::*field, double factor = 1) {
  std::vector<double> values;
  for (const Metrics& m : all) values.push_back(factor * (m.*field));
  return values;
}

std::string percent_text(double percent) {
  return fmt::format("{:.2f}", percent);
}

std::string with_deviation(const std::vector<double>& values, std::string (*text)(double)) {
  if (values.empty()) return "-";
  const MeanDeviation m = mean_deviation(values);
  return values.size() == 1 ? text(m.mean) : text(m.mean) + " ± " + text(m.deviation);
}

std::string agreement_of(const ReportRow& row) {
  const bool compared = !row.last.empty() && row.last[0].compared;
  return compared ? with_deviation(values_of(row.last, &Metrics::agreement, 100), percent_text) : "-";
}

// What must be equal for two runs to be comparable.
TrainConfig comparable(TrainConfig config) {
  config.name = config.output_root = config.device = "";
  config.seed = 0;
  config.train.label_smoothing = 0;
  config.train.evaluate_test = true;
  config.train.checkpoint_minutes = 0;
  config.data.root = "";
  return config;
}

Baseline baseline_of(const std::string& checkpoint) {
  const fs::path folder = fs::path(checkpoint).parent_path();
  const nlohmann::json info = read_run_info(folder);
  Baseline baseline{folder.string(), checkpoint, std::nullopt};
  if (info.contains("seconds") && info["seconds"].is_number()) baseline.seconds = info["seconds"].get<double>();
  return baseline;
}

}  // namespace

MeanDeviation mean_deviation(const std::vector<double>& values) {
  MeanDeviation m;
  if (values.empty()) return m;
  for (const double v : values) m.mean += v / static_cast<double>(values.size());
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::abs(v - m.mean));
  if (values.size() < 2 || largest == 0) return m;
  const double unit = std::exp2(std::ilogb(largest));  // the square of 1e240 would be infinite
  for (const double v : values) m.deviation += (v - m.mean) / unit * ((v - m.mean) / unit);
  m.deviation = unit * std::sqrt(m.deviation / static_cast<double>(values.size() - 1));
  return m;
}

std::optional<Baseline> find_baseline(const StudentConfig& student, const std::string& configured) {
  if (configured == "none") return std::nullopt;
  if (!configured.empty()) return baseline_of(resolve_checkpoint(configured));
  std::vector<RunEntry> runs = list_runs(in_project(student.train.output_root));
  std::reverse(runs.begin(), runs.end());
  for (const RunEntry& run : runs) {
    if (run.info.value("state", "") != "finished" || !fs::exists(run.path / "config.cfg")) continue;
    try {  // a config of a distillation is not one of a training run, and is passed over
      const TrainConfig config = load_train_config((run.path / "config.cfg").string());
      if (!(comparable(config) == comparable(student.train))) continue;
    } catch (const Error&) {
      continue;
    }
    if (const std::string checkpoint = checkpoint_in(run.path); !checkpoint.empty()) return baseline_of(checkpoint);
  }
  return std::nullopt;
}

std::string report_table(const std::vector<ReportRow>& rows, std::size_t width) {
  std::vector<std::vector<std::string>> cells{
      {"", "arch", "parameters", "test %, last", "test %, best", "loss", "agrees with teacher %", "training"}};
  for (const ReportRow& row : rows) {
    const std::size_t runs = row.last.size();
    cells.push_back({runs > 1 ? fmt::format("{} ({} runs)", row.name, runs) : row.name, row.arch,
                     counted(row.parameters), with_deviation(values_of(row.last, &Metrics::top1, 100), percent_text),
                     with_deviation(values_of(row.best, &Metrics::top1, 100), percent_text),
                     with_deviation(values_of(row.last, &Metrics::loss), loss_text), agreement_of(row),
                     row.seconds ? duration_text(*row.seconds) : "-"});
  }
  return text_table(cells, {.words = 2, .width = width});
}

std::string report_csv(const std::vector<ReportRow>& rows) {
  std::string text =
      "name,arch,parameters,runs,test_last_top1_mean,test_last_top1_sd,test_best_top1_mean,test_best_top1_sd,"
      "test_last_loss_mean,test_last_loss_sd,agreement_mean,agreement_sd,logit_difference_mean,logit_difference_sd,"
      "seconds\n";
  const auto pair = [](const std::vector<double>& values) {
    const MeanDeviation m = mean_deviation(values);
    return values.empty() ? std::string(",,") : fmt::format(",{},{}", m.mean, m.deviation);
  };
  for (const ReportRow& row : rows) {
    const bool compared = !row.last.empty() && row.last[0].compared;
    const std::vector<Metrics> beside = compared ? row.last : std::vector<Metrics>();
    text += fmt::format("{},{},{},{}", csv_field(row.name), row.arch, row.parameters, row.last.size());
    text += pair(values_of(row.last, &Metrics::top1)) + pair(values_of(row.best, &Metrics::top1));
    text += pair(values_of(row.last, &Metrics::loss));
    text += pair(values_of(beside, &Metrics::agreement)) + pair(values_of(beside, &Metrics::logit_difference));
    text += row.seconds ? fmt::format(",{}\n", *row.seconds) : ",\n";
  }
  return text;
}

std::vector<std::string> verdicts(const ReportRow& baseline, const std::vector<ReportRow>& students) {
  struct Score {
    double percent, variance;  // the latter of the mean over the runs, by all that is known of chance
    std::size_t runs;
  };
  const auto score_of = [](const ReportRow& row) {
    const std::vector<Metrics>& chosen = row.best.empty() ? row.last : row.best;
    const MeanDeviation m = mean_deviation(values_of(chosen, &Metrics::top1, 100));
    const double images = static_cast<double>(chosen.at(0).samples), runs = static_cast<double>(chosen.size());
    // Other test images would give another share of right answers, other seeds other networks.
    const double of_images = m.mean * (100 - m.mean) / images, of_seeds = m.deviation * m.deviation;
    return Score{m.mean, (of_images + of_seeds) / runs, chosen.size()};
  };
  const Score reference = score_of(baseline);
  std::vector<std::string> lines;
  for (const ReportRow& student : students) {
    const Score own = score_of(student);
    const double gain = std::round(1e6 * (own.percent - reference.percent)) / 1e6 + 0.0;  // means of equals are equal
    const double uncertain = 2 * std::sqrt(own.variance + reference.variance);
    const char* const verdict = gain > uncertain    ? "distillation helped"
                                : gain < -uncertain ? "distillation did harm"
                                                    : "no difference beyond chance, distillation is not shown to help";
    const std::size_t fewest = std::min(own.runs, reference.runs), most = std::max(own.runs, reference.runs);
    const char* const covers = fewest > 1  ? "for the choice of test images and seeds"
                               : most == 1 ? "for the choice of test images; one run each says nothing of seeds"
                               : own.runs == 1
                                   ? "for the choice of test images; the student's one run says nothing of seeds"
                                   : "for the choice of test images; the baseline's one run says nothing of seeds";
    lines.push_back(fmt::format("{}: {}: {:+.2f} points against the baseline's {:.2f} % (± {:.2f} {})", student.name,
                                verdict, gain, reference.percent, uncertain, covers));
  }
  return lines;
}

std::string curves_csv(const std::vector<Learner>& learners) {
  // group -> epoch -> the values of its runs
  struct Point {
    std::vector<double> train_loss, train_top1, val_loss, val_top1;
  };
  std::map<std::string, std::map<int, Point>> groups;
  for (const Learner& learner : learners) {
    std::ifstream in(learner.file("metrics.jsonl"));
    for (std::string line; std::getline(in, line);) {
      const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
      if (!object.is_object() || object.value("kind", nlohmann::json()) != "epoch") continue;
      Point& point = groups[learner.group][object["epoch"].get<int>()];
      const auto keep = [&](const char* set, const char* figure, std::vector<double>& values) {
        const nlohmann::json value =
            object.value(nlohmann::json::json_pointer(fmt::format("/{}/{}", set, figure)), nlohmann::json());
        if (value.is_number()) values.push_back(value.get<double>());
      };
      keep("train", "loss", point.train_loss);
      keep("train", "top1", point.train_top1);
      keep("val", "loss", point.val_loss);
      keep("val", "top1", point.val_top1);
    }
  }
  std::string text =
      "group,epoch,runs,train_loss_mean,train_loss_sd,train_top1_mean,train_top1_sd,val_loss_mean,val_loss_sd,"
      "val_top1_mean,val_top1_sd\n";
  const auto pair = [](const std::vector<double>& values) {
    const MeanDeviation m = mean_deviation(values);
    return values.empty() ? std::string(",,") : fmt::format(",{},{}", m.mean, m.deviation);
  };
  for (const auto& [group, epochs] : groups) {
    for (const auto& [epoch, p] : epochs) {
      text += fmt::format("{},{},{}", group, epoch, p.train_loss.size());
      text += pair(p.train_loss) + pair(p.train_top1) + pair(p.val_loss) + pair(p.val_top1) + "\n";
    }
  }
  return text;
}

}  // namespace retort
