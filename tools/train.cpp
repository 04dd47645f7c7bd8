// ./train config.cfg: trains a network, or only evaluates one; ./train RUN --resume: goes on with a run.
#include "distill/trainer.h"
#include "tools/program.h"
#include "tools/training_program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Trains an image classifier as a config file says.\n\n  ./train teacher.cfg\n", "train"};
  const retort::tools::TrainingArguments arguments(app, "teacher.cfg", "optimizer.lr=0.1");
  std::string logits_path;
  bool evaluate_only = false;
  auto* const only = app.add_flag("--evaluate-only", evaluate_only, "Evaluates model.init on the test images and ends");
  app.add_option("--logits", logits_path, "With --evaluate-only: writes the logits to this safetensors file")
      ->needs(only);
  only->excludes(arguments.resume_flag);
  if (const auto ended = retort::tools::parse(app, argc, argv)) return *ended;
  const retort::RunChoice choice = retort::tools::chosen(arguments, argv[0], false);
  const retort::TrainConfig config = retort::load_train_config(choice.config, arguments.overrides);
  if (evaluate_only) {
    retort::evaluate_weights(config, logits_path);
    return 0;
  }
  return retort::tools::run_to_end(arguments, choice, argv[0], [&](const retort::TrainerOptions& options) {
    return retort::train(config, options);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
