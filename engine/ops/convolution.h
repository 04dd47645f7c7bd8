// Two-dimensional convolution (cross-correlation, as everywhere in the field), zero padding.
#pragma once

#include "engine/tensor.h"

namespace retort {

using kernels::ConvParams;

// x T [N, H, W, C], weight T [O, KH, KW, C / groups], bias [O] (f64 for f64, else f32) or undefined
// -> T [N, OH, OW, O] with OH = (H + 2 pad - KH) / stride + 1.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvParams& params);

}  // namespace retort
