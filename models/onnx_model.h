// A frozen image classifier from an ONNX file as a Model: a teacher, or what ./evaluate and ./predict run.
#pragma once

#include <memory>
#include <string>

#include "engine/onnx_file.h"
#include "models/model.h"

namespace retort {

struct OnnxModelOptions {
  Device device;
  DType dtype = DType::f32;  // of the arithmetic
  bool fuse = true;          // normalisation, residuals and activations into the convolutions before them
};

// One input of images, [N, 3, H, W] or [N, H, W, 3] (where all extents are free, whichever the graph can be compiled
// for); inputs that nothing reads do not count. The first output of floating numbers is the logits, [N, classes]; where
// a Softmax, LogSoftmax or Sigmoid makes it, the logits are what goes into that (models/onnx/classifier_graph.h). The
// spec's arch is "onnx".
//
// Taps are the names of the file's values: feature maps [N, H, W, C] and vectors [N, C]. A value that fusion leaves out
// is there when it is asked for. stage_names() are the last feature maps of each resolution.
//
// Its parameters() name and count the file's weights, but hold none: they lie on the device as the compiled graph wants
// them. forward() in training is an Error. A batch of another size than the file was exported for runs at once where
// the graph allows it, and otherwise piece by piece, images_at_once() each. Everything is compiled and checked here,
// before anything runs.
class OnnxModel : public Model {
 public:
  OnnxModel(OnnxGraph graph, const OnnxModelOptions& options);
  ~OnnxModel() override;

  ModelOutput forward(const Tensor& x, const ForwardMode& mode, const TapNames& taps = {}) const override;
  std::int64_t images_at_once() const override;
  std::vector<std::string> tap_names() const override;
  std::vector<std::string> stage_names() const override;

  // What the file says about itself; the keys of a checkpoint of ours (normalize_mean, class_names, ...) among it.
  const std::map<std::string, std::string>& metadata() const;
  // Of the images, where the file fixes it or its metadata say; 0 where neither does.
  std::int64_t height() const;
  std::int64_t width() const;
  const std::string& note() const;  // what a user should know of it, or ""

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::unique_ptr<OnnxModel> read_onnx_model(const std::string& path, const OnnxModelOptions& options = {});

}  // namespace retort
