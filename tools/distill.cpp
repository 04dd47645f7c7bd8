// ./distill config.cfg: trains students against frozen teachers.
#include "distill/distill.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include "tools/interrupt.h"
#include "tools/program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Distils teachers into students as a config file says.", "distill"};
  std::string config_path;
  std::vector<std::string> overrides;
  bool resume = false;
  int version = 0;
  app.add_option("config", config_path, "The experiment, a TOML file such as student_at.cfg")->required();
  app.add_option("--set", overrides, "Sets a key of the config: --set loss.1.weight=0.5 (may be repeated)");
  auto* const resume_flag = app.add_flag("--resume", resume, "Goes on with the newest version of the run");
  auto* const version_option =
      app.add_option("--version", version, "With --resume: the version to go on with")->needs(resume_flag);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return retort::tools::usage(app, error);
  }

  const retort::DistillConfig config = retort::load_distill_config(config_path, overrides);
  retort::TrainerOptions options;
  options.resume = resume;
  if (version_option->count() > 0) options.version = version;
  options.stop_requested = [] { return retort::tools::interrupts.load() > 0; };
  retort::tools::catch_interrupts();
  const retort::TrainSummary summary = retort::distill(config, options);
  if (summary.finished) return 0;
  fmt::print("interrupted after step {}; to go on: {} {} --resume\n", summary.steps, argv[0], config_path);
  return 130;
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
