// ./runs: every run and version; ./runs A B: those side by side; ./runs rm A: gone.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "distill/console.h"
#include "distill/run_comparison.h"
#include "distill/run_removal.h"
#include "engine/project_folder.h"
#include "kernels/error.h"
#include "tools/program.h"

namespace {

struct Options {
  std::string root = retort::in_project("runs");
  std::vector<std::string> compared, removed;
  bool json = false, csv = false, yes = false;
};

int compare(const Options& options) {
  std::vector<retort::ComparedRun> chosen;
  if (options.compared.empty()) chosen = retort::all_runs(options.root);
  for (const std::string& name : options.compared) {
    for (retort::ComparedRun& run : retort::find_runs(options.root, name)) chosen.push_back(std::move(run));
  }
  const retort::RunComparison comparison = retort::compare_runs(std::move(chosen));
  retort::write_output(options.json  ? comparison_json(comparison)
                       : options.csv ? comparison_csv(comparison)
                                     : comparison_table(comparison, retort::output_width()));
  return 0;
}

int list(const Options& options) {
  const std::vector<retort::RunEntry> runs = retort::list_runs(options.root);
  if (runs.empty()) {
    retort::say("no runs in {}; ./train CONFIG makes one\n", options.root);
    return 0;
  }
  retort::write_output(retort::runs_table(runs, retort::output_width()));
  return 0;
}

bool confirmed(std::size_t versions) {
  retort::check(isatty(STDIN_FILENO) == 1, "rm: asks before it removes, and nobody is there to answer; give --yes");
  std::fflush(stdout);
  std::fputs(
      fmt::format("remove {} for good? [y/N] ", versions == 1 ? "it" : fmt::format("these {}", versions)).c_str(),
      stderr);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

int remove(const Options& options) {
  const std::vector<retort::RunEntry> runs = retort::runs_to_remove(options.root, options.removed);
  const auto text = [](const retort::RunEntry& run) {
    return fmt::format("{}, {}, {}", run.path.string(), retort::state_of(run), retort::bytes_text(bytes_in(run)));
  };
  if (!options.yes) {
    for (const retort::RunEntry& run : runs) retort::say("{}\n", text(run));
    if (!confirmed(runs.size())) {
      retort::say("nothing is removed\n");
      return 1;
    }
  }
  for (const retort::RunEntry& run : runs) {
    const std::string what = text(run);
    retort::remove_run(run);
    retort::say("removed {}\n", what);
  }
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{
      "Lists runs and their versions with state and accuracy, or compares those that are named.\n\n"
      "  ./runs teacher student\n",
      "runs"};
  Options options;
  const auto add_root = [&](CLI::App& to) {
    to.add_option("--root", options.root, "The folder of the runs ([output] root)")->capture_default_str();
  };
  app.add_option("names", options.compared,
                 "What to compare: NAME (its newest version), NAME/vN, NAME/vN/STUDENT or a path");
  add_root(app);
  app.add_flag("--csv", options.csv, "One line a run, for a spreadsheet")
      ->excludes(app.add_flag("--json", options.json, "Everything that is known of the runs, for a program"));
  CLI::App* const rm = app.add_subcommand("rm", "Removes runs or versions for good");
  rm->add_option("names", options.removed, "What to remove: NAME (all its versions), NAME/vN or a path")->required();
  rm->add_flag("-y,--yes", options.yes, "Does not ask");
  add_root(*rm);
  const auto checks = [&] {
    if (rm->parsed() && (options.json || options.csv || !options.compared.empty())) {
      throw CLI::ValidationError("rm", "stands alone, with what to remove and --yes behind it");
    }
  };
  if (const auto ended = retort::tools::parse(app, argc, argv, checks)) return *ended;
  if (rm->parsed()) return remove(options);
  return options.compared.empty() && !options.json && !options.csv ? list(options) : compare(options);
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
