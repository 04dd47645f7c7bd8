// ./runs: every run and version; ./runs A B: those side by side.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "distill/console.h"
#include "distill/run_comparison.h"
#include "engine/project_folder.h"
#include "tools/program.h"

namespace {

using retort::RunEntry;

std::string text_of(const RunEntry& run, const char* key) {
  const auto found = run.info.find(key);
  if (found == run.info.end() || found->is_null()) return "-";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string percent_of(const nlohmann::json& values, const char* key) {
  const auto found = values.find(key);
  return found != values.end() && found->is_number() ? fmt::format("{:.2f}", 100 * found->get<double>()) : "-";
}

std::string epochs_of(const RunEntry& run) {
  return text_of(run, "epoch") + "/" + text_of(run, "epochs");
}

std::string parameters_of(const RunEntry& run) {
  const auto found = run.info.find("parameters");
  return found != run.info.end() && found->is_number_integer() ? retort::counted(found->get<std::int64_t>()) : "-";
}

std::string time_of(const RunEntry& run) {
  const auto found = run.info.find("seconds");
  return found != run.info.end() && found->is_number() ? retort::duration_text(found->get<double>()) : "-";
}

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      // Words to the left, numbers to the right.
      line += c < 5 ? fmt::format("{:<{}}  ", row[c], widths[c]) : fmt::format("{:>{}}  ", row[c], widths[c]);
    }
    fmt::print("{}\n", line.substr(0, line.find_last_not_of(' ') + 1));
  }
}

int run(int argc, char** argv) {
  CLI::App app{"Lists runs and their versions with state and accuracy, or compares those that are named.", "runs"};
  std::string root = retort::in_project("runs");
  std::vector<std::string> names;
  bool json = false, csv = false;
  app.add_option("names", names, "What to compare: NAME (its newest version), NAME/vN, NAME/vN/STUDENT or a path");
  app.add_option("--root", root, "The folder of the runs ([output] root)")->capture_default_str();
  app.add_flag("--csv", csv, "One line a run, for a spreadsheet")
      ->excludes(app.add_flag("--json", json, "Everything that is known of the runs, for a program"));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return retort::tools::usage(app, error);
  }
  if (!names.empty() || json || csv) {
    std::vector<retort::ComparedRun> chosen;
    if (names.empty()) chosen = retort::all_runs(root);
    for (const std::string& name : names) {
      for (retort::ComparedRun& run : retort::find_runs(root, name)) chosen.push_back(std::move(run));
    }
    const retort::RunComparison comparison = retort::compare_runs(std::move(chosen));
    fmt::print("{}", json  ? comparison_json(comparison)
                     : csv ? comparison_csv(comparison)
                           : comparison_table(comparison));
    return 0;
  }
  const std::vector<RunEntry> runs = retort::list_runs(root);
  if (runs.empty()) {
    fmt::print("no runs in {}; ./train CONFIG makes one\n", root);
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"run", "version", "state", "arch", "dataset", "epoch", "parameters",
                                              "best val %", "test last %", "test best %", "time", "started"}};
  for (const RunEntry& run : runs) {
    rows.push_back({run.name, fmt::format("v{}", run.version), retort::state_of(run), text_of(run, "arch"),
                    text_of(run, "dataset"), epochs_of(run), parameters_of(run),
                    percent_of(run.info, "best_validation_top1"), percent_of(run.info, "test_last_top1"),
                    percent_of(run.info, "test_best_top1"), time_of(run), text_of(run, "started")});
    const auto students = run.info.find("students");
    if (students == run.info.end() || !students->is_object()) continue;
    for (const auto& [name, values] : students->items()) {
      rows.push_back({"  " + name, "", "", "", "", "", "", percent_of(values, "best_validation_top1"),
                      percent_of(values, "test_last_top1"), percent_of(values, "test_best_top1"), "", ""});
    }
  }
  print_table(rows);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
