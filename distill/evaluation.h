// ./evaluate: all that there is to know about a trained classifier, from its file and a data set. docs/evaluate.md says
// what each figure means.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "distill/classification_report.h"
#include "distill/classifier.h"
#include "distill/cost.h"
#include "distill/evaluate.h"
#include "engine/text.h"

namespace retort {

// A network and how its images are normalised: a preset's name, or "" for what its file says.
struct NetworkChoice {
  ClassifierOptions options;  // device and dtype are set from the request
  std::string normalize;
};

struct EvaluationRequest {
  NetworkChoice network;
  std::optional<NetworkChoice> teacher;
  std::string dataset;         // "": the one that the file names
  std::string root;            // of the data sets; "": the run's, where it says one
  std::string split = "test";  // or "validation", which only a run knows
  std::string device = "auto";
  std::string precision = "f32";
  double speed_seconds = 10;  // 0: speed and memory are not measured
};

struct Evaluation {
  std::string file, arch, dataset, split, device, precision;
  std::vector<std::string> class_names;  // one a class
  std::int64_t height = 0, width = 0, parameters = 0, multiply_adds = 0;
  Metrics metrics;
  ClassificationReport report;
  std::string note;                                      // what a user should know of the network, or ""
  std::string teacher_file, teacher_arch, teacher_note;  // "" without a teacher
  Metrics teacher_metrics;
  std::optional<Speed> speed;
};

// Throws Error, one line, where a file or the data are missing or do not fit together.
Evaluation evaluate_classifier(const EvaluationRequest& request);

// For people: a line a subject, folded where it is longer than `width`.
std::string evaluation_table(const Evaluation& evaluation, std::size_t width = kWhole);
// The same with all digits, every class and every bin; the confusion matrix where it has at most 100 classes.
nlohmann::ordered_json evaluation_json(const Evaluation& evaluation);
// evaluation.json, per_class.csv, confusion.csv and confusion.png, into a folder that is made where it is missing.
void write_evaluation(const Evaluation& evaluation, const std::string& folder);

// How a network's images are normalised: by the preset, else as its file says. Throws Error where neither is known.
Normalization normalization_of(const Classifier& classifier, const std::string& preset);

}  // namespace retort
