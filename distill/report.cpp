#include "distill/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "distill/classifier.h"
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

std::string with_deviation(const std::vector<double>& values, int digits) {
  if (values.empty()) return "-";
  const MeanDeviation m = mean_deviation(values);
  return values.size() == 1 ? fmt::format("{:.{}f}", m.mean, digits)
                            : fmt::format("{:.{}f} ± {:.{}f}", m.mean, digits, m.deviation, digits);
}

std::string agreement_of(const ReportRow& row) {
  const bool compared = !row.last.empty() && row.last[0].compared;
  return compared ? with_deviation(values_of(row.last, &Metrics::agreement, 100), 2) : "-";
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
  if (values.size() < 2) return m;
  for (const double v : values) m.deviation += (v - m.mean) * (v - m.mean);
  m.deviation = std::sqrt(m.deviation / static_cast<double>(values.size() - 1));
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

std::string report_table(const std::vector<ReportRow>& rows) {
  std::vector<std::vector<std::string>> cells{
      {"", "arch", "parameters", "test %, last", "test %, best", "loss", "agrees with teacher %", "training"}};
  for (const ReportRow& row : rows) {
    const std::size_t runs = row.last.size();
    cells.push_back({runs > 1 ? fmt::format("{} ({} runs)", row.name, runs) : row.name, row.arch,
                     counted(row.parameters), with_deviation(values_of(row.last, &Metrics::top1, 100), 2),
                     with_deviation(values_of(row.best, &Metrics::top1, 100), 2),
                     with_deviation(values_of(row.last, &Metrics::loss), 4), agreement_of(row),
                     row.seconds ? duration_text(*row.seconds) : "-"});
  }
  return text_table(cells, 2);
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
    text += fmt::format("{},{},{},{}", row.name, row.arch, row.parameters, row.last.size());
    text += pair(values_of(row.last, &Metrics::top1)) + pair(values_of(row.best, &Metrics::top1));
    text += pair(values_of(row.last, &Metrics::loss));
    text += pair(values_of(beside, &Metrics::agreement)) + pair(values_of(beside, &Metrics::logit_difference));
    text += row.seconds ? fmt::format(",{}\n", *row.seconds) : ",\n";
  }
  return text;
}

std::vector<std::string> verdicts(const ReportRow& baseline, const std::vector<ReportRow>& students) {
  const auto chosen = [](const ReportRow& row) {
    return mean_deviation(values_of(row.best.empty() ? row.last : row.best, &Metrics::top1, 100));
  };
  const MeanDeviation reference = chosen(baseline);
  std::vector<std::string> lines;
  for (const ReportRow& student : students) {
    const MeanDeviation own = chosen(student);
    // What chance alone makes of the test images, for both networks.
    const double images = static_cast<double>(student.last.at(0).samples);
    const auto chance = [&](const MeanDeviation& m, std::size_t runs) {
      const double p = m.mean / 100;
      return 1e4 * p * (1 - p) / images / static_cast<double>(std::max<std::size_t>(1, runs));
    };
    const double noise = std::sqrt(chance(reference, baseline.last.size()) + chance(own, student.last.size()));
    const double gain = own.mean - reference.mean;
    const char* verdict = gain <= 0          ? "distillation did not help"
                          : gain < 2 * noise ? "distillation helped, but by less than chance alone explains"
                                             : "distillation helped";
    lines.push_back(fmt::format("{}: {}: {:+.2f} points against the baseline's {:.2f} % (chance: ± {:.2f})",
                                student.name, verdict, gain, reference.mean, 2 * noise));
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
