// ./distill config.cfg: trains students against frozen teachers; ./distill RUN --resume: goes on with a run.
#include "distill/distill.h"

#include "tools/program.h"
#include "tools/training_program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Distils teachers into students as a config file says.\n\n  ./distill student_at.cfg\n", "distill"};
  const retort::tools::TrainingArguments arguments(app, "student_at.cfg", "loss.1.weight=0.5");
  if (const auto ended = retort::tools::parse(app, argc, argv)) return *ended;
  const retort::RunChoice choice = retort::tools::chosen(arguments, argv[0], true);
  const retort::DistillConfig config = retort::load_distill_config(choice.config, arguments.overrides);
  return retort::tools::run_to_end(arguments, choice, argv[0], [&](const retort::TrainerOptions& options) {
    return retort::distill(config, options);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
