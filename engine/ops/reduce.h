// Reductions of floating tensors. Scalars [1] have the accumulation type: f64 for f64, else f32.
#pragma once

#include "engine/tensor.h"

namespace retort {

Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);

// Whether no element is NaN or infinite. Waits for the device.
bool all_finite(const Tensor& x);

}  // namespace retort
