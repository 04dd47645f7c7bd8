// Where a NaN or an infinity came into a network, for the message that stops a run.
#pragma once

#include <string>

#include "models/model.h"

namespace retort {

// "parameter conv1.weight" or "buffer bn1.running_var", the first that holds one; "" where none does. Waits for the
// device, once where the parameters are sound and once a buffer.
std::string first_nonfinite(const ParameterStore& store);

// The first of the input, the feature maps in order of depth and the logits of a forward pass that holds one: "feature
// map layer1"; "" where none does.
std::string first_nonfinite(const Model& model, const Tensor& input, const ForwardMode& mode);

}  // namespace retort
