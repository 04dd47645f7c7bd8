// References for engine/ops/feature_losses.h: plain f64, from the papers' formulas.
#pragma once

#include "tests/support/reference.h"

namespace retort::reference {

double mean_squared_error(const Array& x, const Array& target);
double smooth_l1(const Array& x, const Array& target, double beta);
double binary_cross_entropy(const Array& logits, const Array& target);
Array channel_energy(const Array& x, double p);  // x [N, H, W, C]
Array channels_first(const Array& x);            // x [N, H, W, C] or [N, R, C]
double neuron_selectivity(const Array& s, const Array& t);
double variational_information(const Array& mean, const Array& target, const Array& raw, double epsilon);

}  // namespace retort::reference
