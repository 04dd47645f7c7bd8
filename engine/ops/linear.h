// Matrix products.
#pragma once

#include "engine/tensor.h"

namespace retort {

using kernels::Math;

// op(a) op(b): [M, K] x [K, N] -> [M, N], where op transposes if asked. Same floating type.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false,
              Math math = Math::standard);

// x W^T + bias: x T [N, in], weight T [out, in], bias [out] (f64 for f64, else f32) or undefined.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Math math = Math::standard);

}  // namespace retort
