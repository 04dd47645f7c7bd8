// Operators that only move or rename elements.
#pragma once

#include <vector>

#include "engine/tensor.h"

namespace retort {

// The same elements under another shape of equal numel; shares memory.
Tensor reshape(const Tensor& x, const Shape& shape);
// [N, ...] -> [N, rest].
Tensor flatten(const Tensor& x);
// Joins tensors of equal type along `axis`; all other extents equal.
Tensor concatenate(const std::vector<Tensor>& inputs, int axis);

}  // namespace retort
