#include "distill/export.h"

#include <fmt/format.h>

#include <filesystem>
#include <iterator>

#include "distill/console.h"
#include "engine/atomic_file.h"
#include "engine/onnx_export.h"
#include "engine/safetensors.h"

namespace retort {
namespace {

using Metadata = std::map<std::string, std::string>;

Metadata metadata_of(const Classifier& classifier) {
  Metadata metadata = network_metadata(classifier.model->spec(), classifier.class_names, classifier.normalization,
                                       classifier.height, classifier.width);
  for (const auto& [key, value] : classifier.metadata) {
    if (!key.starts_with("retort.")) metadata.emplace(key, value);  // those are the file's own
  }
  return metadata;
}

std::string line_about(const std::string& path, const Classifier& classifier, const std::string& what) {
  const double megabytes = static_cast<double>(std::filesystem::file_size(path)) / 1e6;
  return fmt::format("{}: {}, {} classes, {} parameters, {}, {:.1f} MB", path, classifier.model->spec().arch,
                     classifier.model->spec().classes, counted(classifier.model->parameters().parameter_count()), what,
                     megabytes);
}

// The graph that a network from an ONNX file runs is not ours to write.
void check_writable(const Classifier& classifier) {
  check(classifier.model->spec().arch != "onnx", "{}: is an ONNX file already; exported are networks of Retort's own",
        classifier.file);
}

}  // namespace

std::string export_onnx(const Classifier& classifier, const std::string& path, const ExportOptions& options) {
  check_writable(classifier);
  check(classifier.height > 0, "{}: does not say how large its images are; add --input-size, such as 224 or 32x48",
        classifier.file);
  check(options.precision == "f32" || options.precision == "f16", "{}: ONNX is written in f32 or f16, not in {}", path,
        options.precision);
  const Model& model = *classifier.model;
  OnnxExportOptions onnx;
  onnx.name = model.spec().arch;
  onnx.half = options.precision == "f16";
  onnx.metadata = metadata_of(classifier);
  if (options.normalize_input) {
    check(classifier.normalization.has_value(), "{}: does not say how its images are normalised; add --normalize NAME",
          classifier.file);
    onnx.normalize.emplace();
    std::copy_n(classifier.normalization->mean, 3, onnx.normalize->mean.begin());
    std::copy_n(classifier.normalization->std, 3, onnx.normalize->deviation.begin());
    onnx.metadata["normalize_mean"] = "0 0 0";
    onnx.metadata["normalize_std"] = "1 1 1";
  }
  const auto forward = [&](const Tensor& x) { return model.forward(x, {}).logits; };
  write_file_atomically(path, onnx_model(forward, {classifier.height, classifier.width, 3}, model.constants(), onnx));
  return line_about(path, classifier,
                    fmt::format("input [batch, 3, {}, {}]{}, {}{}", classifier.height, classifier.width,
                                options.normalize_input ? " in [0, 1]" : "", options.precision,
                                model.folded() ? ", batch normalisation folded" : ""));
}

std::string export_safetensors(const Classifier& classifier, const std::string& path, const ExportOptions& options) {
  check_writable(classifier);
  const Model& model = *classifier.model;
  check(!model.folded(), "{}: a folded network has no parameters under their names any more", path);
  check(model.parameters().compute() == DType::f32, "{}: exporting needs a network in f32", path);
  std::vector<NamedArray> arrays = model.parameters().to_arrays();
  if (options.precision != "f32") {
    const FileType type = options.precision == "f16" ? FileType::f16 : FileType::bf16;
    for (NamedArray& array : arrays) {
      if (array.dtype == FileType::f32) array = rounded_to(type, array);
    }
  }
  write_safetensors(path, arrays, metadata_of(classifier));
  return line_about(path, classifier, options.precision);
}

}  // namespace retort
