// Elementwise operators. Inputs are floating; both inputs of a binary operator have the same shape, type and device,
// else retort::Error.
#pragma once

#include "engine/tensor.h"

namespace retort {

using kernels::Activation;

Tensor add(const Tensor& a, const Tensor& b);            // a + b
Tensor scale(const Tensor& x, double factor);            // factor * x
Tensor scale_by(const Tensor& x, const Tensor& factor);  // factor[0] * x; factor [1] in the accumulation type, constant
Tensor square(const Tensor& x);                          // x²
Tensor cast(const Tensor& x, DType dtype);               // x in another floating type; x itself where it has that type
Tensor accumulated(const Tensor& x);                     // x in its accumulation type
Tensor activation(const Tensor& x, Activation kind);     // x itself for identity
Tensor relu(const Tensor& x);                            // max(x, 0)
Tensor relu6(const Tensor& x);                           // min(max(x, 0), 6)

// What the random operators of a forward pass refer to: which samples these are, and when. Both on the device.
struct SampleContext {
  Tensor sample_ids;  // i32 [N]: index of each sample in the data set
  Tensor epoch;       // i32 [1]
  std::uint64_t seed = 0;
};

// Training-time dropout (Srivastava et al. 2014, inverted): each element is dropped with probability p, else scaled by
// 1 / (1 - p). x is [N, ...]. `purpose` tells the layers of a network apart. The mask depends on nothing but
// (seed, purpose, epoch, sample, element).
Tensor dropout(const Tensor& x, double p, const SampleContext& samples, std::uint32_t purpose);

}  // namespace retort
