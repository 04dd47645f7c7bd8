// Networks as ONNX files (https://onnx.ai/onnx/repo-docs/IR.html), opset 17, from a trace of their forward pass; no
// model is known by name here. What is written for which operator: docs/interop.md.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "engine/tensor.h"

namespace retort {

struct OnnxExportOptions {
  std::string name = "network";
  // Weights and arithmetic in f16; "image" and "logits" stay f32.
  bool half = false;
  // Takes this mean and divides by this deviation, channel by channel, in front of the network.
  struct Normalize {
    std::array<double, 3> mean, deviation;
  };
  std::optional<Normalize> normalize;
  std::map<std::string, std::string> metadata;  // metadata_props
};

// The bytes of a model with the input "image" f32 [batch, C, H, W] and the output "logits" f32 [batch, classes], batch
// free. `forward` goes from f32 [N, H, W, C] to f32 [N, classes] and is run twice, on blank batches of 1 and of 2.
// `image` is [H, W, C]. `constants` names the tensors that become initializers; others get a number.
//
// Throws Error, which begins with the operator, for what cannot be said in ONNX, for a value that came about behind the
// trace's back (engine/trace.h), for a pass that does something else for another batch, for names and metadata that are
// not UTF-8, and, with half, for a weight that f16 cannot hold.
std::string onnx_model(const std::function<Tensor(const Tensor&)>& forward, const Shape& image,
                       const NamedTensors& constants, const OnnxExportOptions& options);

}  // namespace retort
