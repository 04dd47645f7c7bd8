// Losses between the relations that samples of a batch have to each other. Everything here is in the accumulation type
// (f64 or f32); convert features with cast(). A loss returns [1]; the teacher's argument is a constant unless a
// function says otherwise.
#pragma once

#include "engine/tensor.h"

namespace retort {

// x [B, D] -> [B, B]: |x_i - x_j|², from the differences themselves (nothing cancels); exactly 0 on the diagonal.
Tensor pairwise_squared_distances(const Tensor& x);

struct DistanceLossOptions {
  bool normalize = true;   // divide distances by their mean over the pairs with a distance above 0
  bool squared = false;    // mean squared error instead of smooth L1 (beta 1)
  double epsilon = 1e-12;  // squared distances below it count as it (off the diagonal)
};
// Mean over all B² pairs of the loss between the distances sqrt(s_ij) and sqrt(t_ij); arguments are squared distances
// [B, B]. The mean used to normalise is part of what is differentiated. Park et al., "Relational knowledge
// distillation", CVPR 2019, eq. 7 and 8 (normalize); without it the plain distance metric loss.
Tensor distance_loss(const Tensor& student, const Tensor& teacher, const DistanceLossOptions& options = {});

// Mean over all B³ triplets of smooth L1 (beta 1) between cos of the angles j-i-k, with cos = (d_ij² + d_ik² - d_jk²) /
// (2 d_ij d_ik) from squared distances [B, B] and 0 where i coincides with j or k (d² <= epsilon²). No B³ tensor is
// made. Park et al. 2019, eq. 9 and 10.
Tensor angle_loss(const Tensor& student, const Tensor& teacher, double epsilon = 1e-12);

// Arguments are cosine similarities [B, B]. p = (s + 1) / 2, each row divided by its sum; mean over all B² entries of
// p_t log((p_t + epsilon) / (p_s + epsilon)). Passalis & Tefas, "Learning deep representations with probabilistic
// knowledge transfer", ECCV 2018, eq. 4 to 6.
Tensor probability_transfer(const Tensor& student, const Tensor& teacher, double epsilon = 1e-7);

// d = |a - b| [B, D]; mean over i = 0 .. B - 2 of sum_k d_ik d_(i+1)k. Both arguments get gradients. The correlation
// congruence of Peng et al., ICCV 2019, in the form in which RepDistiller made it known. B >= 2.
Tensor correlation_congruence(const Tensor& a, const Tensor& b);

}  // namespace retort
