// Losses between feature maps of a student and of a teacher, and the operators that they are made of. A loss returns
// [1] in the accumulation type. Unless a function says otherwise the second argument is a constant: one that requires a
// gradient is an error.
#pragma once

#include "engine/tensor.h"

namespace retort {

// Means over all elements of x and target, T of the same shape.
Tensor mean_squared_error(const Tensor& x, const Tensor& target);  // (x - t)²
Tensor smooth_l1(const Tensor& x, const Tensor& target,
                 double beta = 1.0);  // d²/(2 beta) for d < beta, else d - beta/2
Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& target);  // log(1 + e^x) - t x, without overflow

// x T [N, H, W, C] -> A [N, H * W]: mean_c |x|^p, p > 0; the attention map of Zagoruyko & Komodakis, "Paying more
// attention to attention", ICLR 2017, eq. 1 (F_sum^p up to the factor that normalisation removes).
Tensor channel_energy(const Tensor& x, double p = 2.0);

// x T [N, H, W, C] (or [N, R, C]) -> T [N, C, H * W].
Tensor channels_first(const Tensor& x);

// Squared maximum mean discrepancy with the polynomial kernel k(a, b) = (a b)², mean over the batch, between the
// columns s [N, Cs, D] and t [N, Ct, D], in the accumulation type and normalised by the caller: mean k(s, s) + mean
// k(t, t) - 2 mean k(s, t). Huang & Wang, "Like what you like", 2017, eq. 6.
Tensor neuron_selectivity(const Tensor& student, const Tensor& teacher);

// mean(½ ((mean - target)² / v + log v)), v_c = softplus(raw_c) + epsilon; mean, target T [..., C]; raw A [C]. mean and
// raw get gradients. Ahn et al., "Variational information distillation", CVPR 2019, eq. 5 and 6.
Tensor variational_information(const Tensor& mean, const Tensor& target, const Tensor& raw_variance,
                               double epsilon = 1e-5);

// x; its gradient is -strength times that of the result. Ganin & Lempitsky, "Unsupervised domain adaptation by
// backpropagation", ICML 2015.
Tensor reverse_gradient(const Tensor& x, double strength = 1.0);

}  // namespace retort
