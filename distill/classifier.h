// A trained network from a file, with what the file says about it: what teachers, ./evaluate, ./predict and ./export
// begin with.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/augment_config.h"
#include "models/model.h"

namespace retort {

struct ClassifierOptions {
  std::string where;  // begins errors about what the caller's user left out: "[[teacher]] 1"; may be empty
  std::string path;   // what resolve_checkpoint() takes: a run, a version, a student, a file of weights or an ONNX file
  // For files that do not say it themselves, or not in our words; where given they count before what the file says.
  std::string arch, stem, shortcut;
  std::string arch_hint = "add arch = \"...\" to the block";  // how the caller's user gives one
  std::int64_t classes = 0;  // of the student that this is to teach; 0: those that the file has
  bool fold = true;          // batch normalisation into the convolutions; the parameters are frozen either way
  Device device;
  DType dtype = DType::f32;  // of the activations
};

struct Classifier {
  std::string file;
  std::unique_ptr<Model> model;
  // What the file says, or nothing where it does not, or in words that are not ours.
  std::vector<std::string> class_names;  // one a class, or none
  std::optional<Normalization> normalization;
  std::int64_t height = 0, width = 0;  // of its input
  std::map<std::string, std::string> metadata;
  std::string note;  // what a user should know of it, or ""

  std::string metadata_or(const std::string& key, const std::string& fallback) const;
  std::string class_name(std::int64_t number) const;  // the number where the file has no names
};

// Throws Error, one line, for a file that is not there, damaged, without a known arch, of another number of classes, or
// with weights that are not finite.
Classifier load_classifier(const ClassifierOptions& options);

// What a checkpoint or an exported file says about its network, in the words that load_classifier() reads; what is not
// known - no names, a height of 0, no normalisation - is left out.
std::map<std::string, std::string> network_metadata(const ModelSpec& spec, const std::vector<std::string>& class_names,
                                                    const std::optional<Normalization>& normalization,
                                                    std::int64_t height, std::int64_t width);

// A name for each of so many classes: those without one are called by their number.
std::vector<std::string> named_classes(std::vector<std::string> names, std::int64_t classes);

// The names of --classes, one a line; blanks at the ends of lines and empty lines at the end do not count. Throws Error
// where their number is not `classes`.
std::vector<std::string> read_class_names(const std::string& path, std::int64_t classes);

}  // namespace retort
