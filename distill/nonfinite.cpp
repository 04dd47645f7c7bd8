#include "distill/nonfinite.h"

#include "engine/autograd.h"
#include "engine/ops.h"

namespace retort {

std::string first_nonfinite(const ParameterStore& store) {
  // Networks from ONNX files count their parameters and keep them elsewhere.
  if (store.values() && !all_finite(store.values())) {
    for (const auto& parameter : store.parameters()) {
      if (parameter->value && !all_finite(parameter->value)) return "parameter " + parameter->name;
    }
  }
  for (const auto& buffer : store.buffers()) {
    if (buffer->value && is_floating(buffer->value.dtype()) && !all_finite(buffer->value))
      return "buffer " + buffer->name;
  }
  return "";
}

std::string first_nonfinite(const Model& model, const Tensor& input, const ForwardMode& mode) {
  const autograd::NoGradGuard no_grad;
  if (!all_finite(input)) return "the network's input";
  const std::vector<std::string> names = model.tap_names();
  const ModelOutput output = model.forward(input, mode, TapNames(names.begin(), names.end()));
  for (const std::string& name : names) {
    if (!all_finite(output.taps.at(name))) return "feature map " + name;
  }
  return all_finite(output.logits) ? "" : "the logits";
}

}  // namespace retort
