// References for the losses between logits, from the formulas of their papers (named in engine/ops/logit_losses.h) with
// the divergences taken literally: in long double, on the logarithms of probabilities.
#pragma once

#include "tests/support/reference.h"

namespace retort::reference {

Array standardize_rows(const Array& x, double epsilon);
double soft_targets(const Array& student, const Array& teacher, double temperature);
double soft_cross_entropy(const Array& student, const Array& teacher, double temperature);
// The two terms of decoupled distillation, without their weights and without T².
struct Decoupled {
  double target, others;
};
Decoupled decoupled_kd(const Array& student, const Array& teacher, const std::vector<std::int32_t>& labels,
                       double temperature);
double pearson_distance(const Array& x, const Array& y, bool columns, double epsilon);
Array mean_softmax_logits(const std::vector<Array>& logits, double temperature);

}  // namespace retort::reference
