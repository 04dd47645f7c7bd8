// ./predict: what a trained classifier says about image files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/image_input.h"
#include "distill/evaluation.h"
#include "distill/output_kind.h"

namespace retort {

struct PredictionRequest {
  NetworkChoice network;
  std::string resize, crop;      // data/image_input.h
  std::string class_names_file;  // one name a line; "": those in the network's file, else numbers
  int top = 3;                   // classes a prediction has; no more than there are
  std::string device = "auto";
  std::string precision = "f32";
};

struct Guess {
  std::int64_t number = 0;  // of the class
  double probability = 0;
};

struct Prediction {
  std::string file;
  std::vector<Guess> best;    // the most probable first; of equals the lower number
  std::vector<float> logits;  // [classes], whatever the network's outputs are
};

class Predictor {
 public:
  // Throws Error, one line, where the network cannot be loaded or the size of its input is impossible.
  explicit Predictor(const PredictionRequest& request);

  const Classifier& classifier() const { return classifier_; }
  std::string class_name(std::int64_t number) const { return classifier_.class_name(number); }
  // Network, file, what is done with images, and what there is to know of its outputs, in one line.
  std::string description() const;

  // In the order of the files; while one batch runs, the next is read. failed() gets one line for each file that cannot
  // be read, or for which the network's logits are not finite.
  void run(const std::vector<std::string>& files, const std::function<void(const Prediction&)>& found,
           const std::function<void(const std::string&)>& failed) const;

 private:
  Classifier classifier_;
  InputPlan plan_;
  Normalization normalization_;
  std::size_t top_;
  Math math_ = Math::standard;
  OutputKind output_kind_;
};

// A CSV file's lines: file, label, probability, and with more than one guess label_2, probability_2 and so on.
std::string csv_header(std::size_t guesses);
std::string csv_line(const Prediction& prediction, const Predictor& predictor);

// Writes "logits" f32 [files, classes], with the files' names as a JSON list in the metadata "files".
void write_logits(const std::string& path, const std::vector<float>& logits, const std::vector<std::string>& files,
                  const Predictor& predictor);

}  // namespace retort
