// Convolutions by our own kernels, one thread an output, for what cuDNN has no engine for (a type, a layout, a group
// size), and what follows a convolution where a library does not do it. Contracts as in kernels.h; deterministic.
#pragma once

#include "kernels/cuda/cuda_kernels.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

void direct_conv2d(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y,
                   Stream stream);
void direct_conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx, Stream stream,
                                 bool accumulate = false);  // dx += instead of dx =
void direct_conv2d_backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream);

// y = act(y + bias + residual), y T [..., C].
void bias_residual_activation(const ConvEpilogue& epilogue, View y, Stream stream);

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
