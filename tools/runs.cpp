// ./runs: every run and version; ./runs A B: those side by side.
#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include "distill/run_comparison.h"
#include "engine/project_folder.h"
#include "tools/program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{
      "Lists runs and their versions with state and accuracy, or compares those that are named.\n\n  ./runs teacher "
      "student\n",
      "runs"};
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
  const std::vector<retort::RunEntry> runs = retort::list_runs(root);
  if (runs.empty()) {
    fmt::print("no runs in {}; ./train CONFIG makes one\n", root);
    return 0;
  }
  fmt::print("{}", retort::runs_table(runs));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
