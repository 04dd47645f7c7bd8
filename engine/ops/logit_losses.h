// Losses between the logits of a student and of a teacher, both T [B, C], and what goes with them. Each returns [1] in
// the accumulation type. The teacher's logits are constants: one that requires a gradient is an error.
#pragma once

#include <vector>

#include "engine/tensor.h"

namespace retort {

// (x - mean) / (s + epsilon) row by row, s the unbiased standard deviation: the logit standardisation of Sun et al.,
// "Logit standardization in knowledge distillation", CVPR 2024, eq. 11. Rows need at least two elements.
Tensor standardize_rows(const Tensor& x, double epsilon = 1e-7);

// T² times the mean over rows of KL(softmax(teacher / T) || softmax(student / T)). Hinton, Vinyals, Dean, "Distilling
// the knowledge in a neural network", 2015.
Tensor soft_targets(const Tensor& student, const Tensor& teacher, double temperature);

// T² times the mean over rows of -sum_c softmax(teacher / T)_c log softmax(student / T)_c: soft_targets plus the
// entropy of the teacher. Shen & Savvides, "MEAL V2", 2020, eq. 4 (there T = 1).
Tensor soft_cross_entropy(const Tensor& student, const Tensor& teacher, double temperature);

// alpha T² KL over {target, rest} + beta T² KL over the classes that are not the target, each the mean over rows. Zhao
// et al., "Decoupled knowledge distillation", CVPR 2022, eq. 7. labels i32 [B]. Computed from differences of
// log-sum-exps, so that a teacher that is certain does not overflow.
Tensor decoupled_kd(const Tensor& student, const Tensor& teacher, const Tensor& labels, double alpha, double beta,
                    double temperature);

// 1 - the mean Pearson correlation of corresponding rows, or columns, of x and y [M, N]. Huang et al., "Knowledge
// distillation from a stronger teacher", NeurIPS 2022, eq. 6 to 9; the denominator gets + epsilon as in their code.
Tensor pearson_distance(const Tensor& x, const Tensor& y, bool columns, double epsilon = 1e-8);

// Logits of the mean of several teachers' softened predictions: z = T log(1/K sum_k softmax(x_k / T)), whence softmax(z
// / T) is that mean. No gradient.
Tensor mean_softmax_logits(const std::vector<Tensor>& logits, double temperature);

// Adds to `sums` f64 [3]: rows where a and b [B, C] have the same largest class (of equals the first), the sum over
// rows of mean_c |a - b|, rows. No gradient.
void accumulate_agreement(const Tensor& a, const Tensor& b, const Tensor& sums);

}  // namespace retort
