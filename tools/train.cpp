// ./train config.cfg: trains a network, or only evaluates one.
#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include "distill/trainer.h"
#include "tools/interrupt.h"
#include "tools/program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Trains an image classifier as a config file says.", "train"};
  std::string config_path, logits_path;
  std::vector<std::string> overrides;
  bool resume = false, evaluate_only = false;
  int version = 0;
  app.add_option("config", config_path, "The experiment, a TOML file such as teacher.cfg")->required();
  app.add_option("--set", overrides, "Sets a key of the config: --set optimizer.lr=0.1 (may be repeated)");
  auto* const resume_flag = app.add_flag("--resume", resume, "Goes on with the newest version of the run");
  auto* const version_option =
      app.add_option("--version", version, "With --resume: the version to go on with")->needs(resume_flag);
  auto* const only = app.add_flag("--evaluate-only", evaluate_only, "Evaluates model.init on the test images and ends");
  app.add_option("--logits", logits_path, "With --evaluate-only: writes the logits to this safetensors file")
      ->needs(only);
  only->excludes(resume_flag);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return retort::tools::usage(app, error);
  }

  const retort::TrainConfig config = retort::load_train_config(config_path, overrides);
  if (evaluate_only) {
    retort::evaluate_weights(config, logits_path);
    return 0;
  }
  retort::TrainerOptions options;
  options.resume = resume;
  if (version_option->count() > 0) options.version = version;
  options.stop_requested = [] { return retort::tools::interrupts.load() > 0; };
  retort::tools::catch_interrupts();
  const retort::TrainSummary summary = retort::train(config, options);
  if (summary.finished) return 0;
  fmt::print("interrupted after step {}; to go on: {} {} --resume\n", summary.steps, argv[0], config_path);
  return 130;
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
