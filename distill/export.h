// A trained network as a file for other programs: ONNX, or safetensors in PyTorch's names.
#pragma once

#include <string>

#include "distill/classifier.h"

namespace retort {

struct ExportOptions {
  std::string precision = "f32";  // of the weights: f32, f16; for safetensors also bf16
  bool normalize_input = false;   // ONNX: the input is RGB in [0, 1], and normalising it the graph's first step
};

// These replace `path` as a whole (engine/atomic_file.h), whatever it held, and return a line about what they wrote.
// Throw Error, one line, for what the file that the classifier came from does not say but the export needs.
//
// The metadata are those of the file with arch, classes, stem, shortcut, input_size, class_names, normalize_mean and
// normalize_std as a checkpoint has them (distill/session.h), where they are known. With normalize_input the mean is 0
// and the deviation 1: it is always what an image in [0, 1] still needs.
//
// Batch normalisation is folded into the convolutions where the classifier's is. engine/onnx_export.h has the rest.
std::string export_onnx(const Classifier& classifier, const std::string& path, const ExportOptions& options);

// The parameters and statistics alone, in torchvision's names and layouts; the classifier must not be folded, as its
// names would no longer fit.
std::string export_safetensors(const Classifier& classifier, const std::string& path, const ExportOptions& options);

}  // namespace retort
