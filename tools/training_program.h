// What ./train and ./distill share: their arguments, Ctrl-C, and the line that says how to go on.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "distill/trainer.h"
#include "tools/interrupt.h"

namespace retort::tools {

struct TrainingArguments {
  // `config_example` and `set_example` go into the help.
  TrainingArguments(CLI::App& app, const std::string& config_example, const std::string& set_example) {
    app.add_option("config", config, "The experiment, a TOML file such as " + config_example)->required();
    app.add_option("--set", overrides, "Sets a key of the config: --set " + set_example + " (may be repeated)");
    resume_flag = app.add_flag("--resume", resume, "Goes on with the newest version of the run");
    app.add_option("--version", version, "With --resume: the version to go on with")->needs(resume_flag);
  }
  TrainingArguments(const TrainingArguments&) = delete;  // `app` writes into it
  TrainingArguments& operator=(const TrainingArguments&) = delete;

  std::string config;
  std::vector<std::string> overrides;
  bool resume = false;
  std::optional<int> version;
  CLI::Option* resume_flag = nullptr;
};

// Trains until the end or an interrupt; the program's exit code. `train` gets the options that the arguments mean.
inline int run_to_end(const TrainingArguments& arguments, const char* program,
                      const std::function<TrainSummary(const TrainerOptions&)>& train) {
  TrainerOptions options;
  options.resume = arguments.resume;
  options.version = arguments.version;
  options.stop_requested = stop_requested;
  catch_interrupts();
  const TrainSummary summary = train(options);
  if (summary.finished) return 0;
  if (summary.run_path.empty()) {
    fmt::print("interrupted before the first step: nothing was trained, and no run was made or changed\n");
    return 130;
  }
  fmt::print("interrupted after step {}; to go on: {} {} --resume\n", summary.steps, program, arguments.config);
  return 130;
}

}  // namespace retort::tools
