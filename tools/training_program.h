// What ./train and ./distill share: their arguments, Ctrl-C, and the line that says how to go on.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "distill/run_choice.h"
#include "distill/trainer.h"
#include "tools/interrupt.h"
#include "tools/program.h"

namespace retort::tools {

struct TrainingArguments {
  // `config_example` and `set_example` go into the help.
  TrainingArguments(CLI::App& app, const std::string& config_example, const std::string& set_example) {
    app.add_option("config", config,
                   "The experiment, a TOML file such as " + config_example +
                       "; with --resume also a run: runs/NAME, runs/NAME/vN or NAME")
        ->required();
    app.add_option("--set", overrides, "Sets a key of the config: --set " + set_example + " (may be repeated)");
    resume_flag = app.add_flag("--resume", resume, "Goes on with the run, with its newest version that has a state");
    const auto read_version = [this](const CLI::results_t& given) {
      if (given.at(0).empty()) throw CLI::CallForVersion(version_text(), 0);
      return CLI::detail::lexical_cast(given[0], version.emplace());
    };
    app.add_option("--version", read_version, "Retort's own; with --resume and a number the run's, to go on with")
        ->needs(resume_flag)
        ->expected(0, 1)
        ->type_name("[N]");
  }
  TrainingArguments(const TrainingArguments&) = delete;  // `app` writes into it
  TrainingArguments& operator=(const TrainingArguments&) = delete;

  std::string config;
  std::vector<std::string> overrides;
  bool resume = false;
  std::optional<int> version;
  CLI::Option* resume_flag = nullptr;
};

// What the arguments mean: the config to read, and where the run lies that is to go on.
inline RunChoice chosen(const TrainingArguments& arguments, const char* program, bool distills) {
  return choose_run({program, arguments.config, arguments.overrides, arguments.resume, arguments.version}, distills);
}

// Trains until the end or an interrupt; the program's exit code. `train` gets the options that the arguments mean.
inline int run_to_end(const TrainingArguments& arguments, const RunChoice& choice, const char* program,
                      const std::function<TrainSummary(const TrainerOptions&)>& train) {
  TrainerOptions options;
  options.resume = arguments.resume;
  options.version = choice.version;
  options.folder = choice.folder;
  options.program = program;
  options.stop_requested = stop_requested;
  catch_interrupts();
  const TrainSummary summary = train(options);
  if (summary.finished) return 0;
  if (summary.run_path.empty()) {
    say("interrupted before the first step: nothing was trained, and no run was made or changed\n");
    return 130;
  }
  say("interrupted after step {}; to go on: {}\n", summary.steps, resume_command(program, summary.run_path));
  return 130;
}

}  // namespace retort::tools
