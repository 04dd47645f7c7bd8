// Reductions to a scalar [1]. The result has the accumulation type: f64 for f64, else f32.
#pragma once

#include "engine/tensor.h"

namespace retort {

Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);

}  // namespace retort
