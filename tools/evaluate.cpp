// ./evaluate RUN|FILE: what a trained classifier is worth.
#include "distill/evaluation.h"
#include "engine/json_text.h"
#include "tools/classifier_arguments.h"
#include "tools/program.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{
      "Measures a trained classifier: accuracy, calibration, confusions, cost and speed.\n\n  ./evaluate "
      "runs/student\n",
      "evaluate"};
  retort::EvaluationRequest request;
  retort::NetworkChoice teacher;
  std::string output;
  bool json = false, no_speed = false;
  app.add_option(
         "network", request.network.options.path,
         "A run (NAME: its newest version), a version (NAME/v1), a student (NAME/STUDENT), or a file of weights")
      ->required();
  app.add_option("--data", request.dataset, "The data set (default: the one that the network was trained on)");
  app.add_option("--root", request.root, "Folder of the data sets (default: the run's, $RETORT_DATASETS or datasets)");
  app.add_option("--split", request.split, "test or validation (of a run, as its config.cfg says)")
      ->check(CLI::IsMember({"test", "validation"}))
      ->capture_default_str();
  auto* const with_teacher = app.add_option("--teacher", teacher.options.path, "A run or file to compare with");
  app.add_option("--output", output,
                 "Writes evaluation.json, per_class.csv, confusion.csv and confusion.png to this folder");
  app.add_flag("--json", json, "Prints one JSON object instead of the table");
  auto* const quick = app.add_flag("--no-speed", no_speed, "Does not measure speed and memory");
  app.add_option("--speed-seconds", request.speed_seconds, "About how long speed is measured")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str()
      ->excludes(quick);
  retort::tools::add_device_options(app, request.device, request.precision);
  retort::tools::add_network_options(app, request.network);
  retort::tools::add_network_options(app, teacher, "teacher");
  if (const auto ended = retort::tools::parse(app, argc, argv)) return *ended;
  if (no_speed) request.speed_seconds = 0;
  if (*with_teacher) request.teacher = teacher;
  const retort::Evaluation evaluation = retort::evaluate_classifier(request);
  if (!output.empty()) retort::write_evaluation(evaluation, output);
  if (json) {
    retort::write_output(retort::json_text(retort::evaluation_json(evaluation), 2) + "\n");
  } else {
    retort::write_output(retort::evaluation_table(evaluation, retort::output_width()));
    if (!output.empty()) retort::say("{:<13}{}\n", "written to", output);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
