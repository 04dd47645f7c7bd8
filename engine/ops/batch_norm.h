// Batch normalisation (Ioffe & Szegedy 2015) over all axes but the last, fused with what follows it in a residual
// network: y = act(gamma (x - mean) / sqrt(var + epsilon) + beta + residual).
#pragma once

#include "engine/ops/elementwise.h"
#include "engine/tensor.h"

namespace retort {

struct BatchNormParams {
  double momentum = 0.1;  // weight of the batch in the running statistics, as in PyTorch
  double epsilon = 1e-5;
  Activation act = Activation::identity;
};

struct BatchNormStatistics {  // [C] in the accumulation type; counter i32 [1]
  Tensor running_mean, running_var, counter;
};

// Training: statistics of the batch; updates the running ones, with the unbiased variance. residual may be undefined.
// x and residual T [..., C]; gamma, beta [C] in the accumulation type. Needs at least two rows.
Tensor batch_norm_training(const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                           const BatchNormStatistics& statistics, const BatchNormParams& params);

// Inference: the running statistics, which get no gradient.
Tensor batch_norm_inference(const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                            const BatchNormStatistics& statistics, const BatchNormParams& params);

}  // namespace retort
