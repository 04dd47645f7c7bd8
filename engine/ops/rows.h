// Operators on the rows of a matrix x T [M, C].
#pragma once

#include "engine/tensor.h"

namespace retort {

Tensor softmax(const Tensor& x);
Tensor log_softmax(const Tensor& x);
// x / max(|x|_2, epsilon), row by row; the gradient of a row shorter than epsilon is that of x / epsilon.
Tensor l2_normalize(const Tensor& x, double epsilon = 1e-12);

// Cross-entropy with label smoothing (Szegedy et al. 2016, eq. 3), mean over rows: targets are
// (1 - smoothing) onehot(label) + smoothing / C. labels i32 [M] in 0 .. C - 1. -> [1] in the accumulation type.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, double smoothing = 0.0);

// Adds the metrics of a batch to `metrics` f64 [4]: sum of the unsmoothed cross-entropy, rows right at the first
// place, rows right among the first five, rows. No gradient.
void accumulate_metrics(const Tensor& logits, const Tensor& labels, const Tensor& metrics);

}  // namespace retort
