// ./distill config.cfg: trains students against frozen teachers.
#include "distill/distill.h"

#include "tools/program.h"
#include "tools/training_program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Distils teachers into students as a config file says.\n\n  ./distill student_at.cfg\n", "distill"};
  const retort::tools::TrainingArguments arguments(app, "student_at.cfg", "loss.1.weight=0.5");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return retort::tools::usage(app, error);
  }
  const retort::DistillConfig config = retort::load_distill_config(arguments.config, arguments.overrides);
  return retort::tools::run_to_end(
      arguments, argv[0], [&](const retort::TrainerOptions& options) { return retort::distill(config, options); });
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
