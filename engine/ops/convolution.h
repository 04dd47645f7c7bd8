// Two-dimensional convolution (cross-correlation, as everywhere in the field), zero padding.
#pragma once

#include "engine/ops/elementwise.h"
#include "engine/tensor.h"

namespace retort {

using kernels::ConvParams;

// x T [N, H, W, C], weight T [O, KH, KW, C / groups], bias [O] (f64 for f64, else f32) or undefined
// -> T [N, OH, OW, O] with OH = (H + 2 pad - dilation (KH - 1) - 1) / stride + 1.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvParams& params);

// act(conv2d(x, weight, bias) + residual) in one pass over the result, for networks that are not trained: an error
// where a gradient would be lost. residual T of the result's shape, or undefined; so may bias be.
Tensor conv2d_inference(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                        Activation act, const ConvParams& params);

}  // namespace retort
