// ./export RUN|FILE --onnx student.onnx --safetensors student.safetensors
#include "distill/export.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>

#include "tools/classifier_arguments.h"
#include "tools/program.h"

namespace {

// "224" or "224x320" (height, width).
std::string parse_size(const std::string& text, std::int64_t& height, std::int64_t& width) {
  const auto number = [](std::string_view part, std::int64_t& value) {
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), value);
    return parsed.ec == std::errc() && parsed.ptr == part.data() + part.size() && value > 0 && value <= 16384;
  };
  const std::size_t x = text.find('x');
  const std::string_view all = text;
  const bool ok = x == std::string::npos ? number(all, height)
                                         : number(all.substr(0, x), height) && number(all.substr(x + 1), width);
  if (x == std::string::npos) width = height;
  return ok ? "" : "expected a size such as 224 or 32x48 (height, width), not " + text;
}

int run(int argc, char** argv) {
  CLI::App app{
      "Writes a trained network for other programs. A file that is there already is replaced.\n\n  ./export "
      "runs/student --onnx student.onnx\n",
      "export"};
  retort::NetworkChoice network;
  retort::ClassifierOptions& source = network.options;
  source.fold = false;
  retort::ExportOptions options;
  std::string onnx, safetensors, size, class_names;
  std::int64_t height = 0, width = 0;
  app.add_option("network", source.path, "A run, a version of it, or a file of weights")->required();
  auto* const to_onnx = app.add_option("--onnx", onnx, "Writes this ONNX file (opset 17)");
  auto* const to_safetensors =
      app.add_option("--safetensors", safetensors, "Writes the weights alone to this file, in torchvision's names");
  auto* const fold = app.add_flag("--fold", source.fold, "ONNX: batch normalisation goes into the convolutions");
  fold->needs(to_onnx)->excludes(to_safetensors);
  app.add_option("--precision", options.precision, "f32, f16, or for safetensors bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app.add_flag("--normalize-input", options.normalize_input,
               "ONNX: the input is RGB in [0, 1], the graph normalises it")
      ->needs(to_onnx);
  retort::tools::add_network_options(app, network);
  app.add_option("--input-size", size, "The size of its images: 224, or height x width such as 32x48")
      ->check([&](const std::string& text) { return parse_size(text, height, width); })
      ->group(retort::tools::kUnsaid);
  retort::tools::add_class_names_option(app, class_names);
  const auto checks = [&] {
    if (onnx.empty() && safetensors.empty()) {
      throw CLI::RequiredError("--onnx FILE or --safetensors FILE");
    }
    if (!onnx.empty() && options.precision == "bf16") {
      throw CLI::ValidationError("--precision", "bf16 is for --safetensors; ONNX is written in f32 or f16");
    }
  };
  if (const auto ended = retort::tools::parse(app, argc, argv, checks)) return *ended;

  retort::Classifier classifier = retort::load_classifier(source);
  if (!classifier.note.empty()) retort::say("note: {}: {}\n", classifier.file, classifier.note);
  if (height > 0) {
    classifier.height = height;
    classifier.width = width;
  }
  if (!network.normalize.empty()) classifier.normalization = retort::normalization_preset(network.normalize);
  if (!class_names.empty()) {
    classifier.class_names = retort::read_class_names(class_names, classifier.model->spec().classes);
  }
  if (!onnx.empty()) retort::say("{}\n", retort::export_onnx(classifier, onnx, options));
  if (!safetensors.empty()) retort::say("{}\n", retort::export_safetensors(classifier, safetensors, options));
  if (!classifier.normalization) {
    retort::say("note: {} does not say how its images are normalised; --normalize NAME writes that down\n",
                classifier.file);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return retort::tools::guarded([&] { return run(argc, argv); });
}
