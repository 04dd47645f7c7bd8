// References for engine/ops/relation_losses.h: plain f64, from the papers' formulas. They start from the samples
// [B, D] themselves, where the operators start from distances and cosines.
#pragma once

#include "tests/support/reference.h"

namespace retort::reference {

Array pairwise_squared_distances(const Array& x);
double relational_distance(const Array& student, const Array& teacher, bool normalize, bool squared, double epsilon);
// Samples nearer than epsilon count as the same.
double relational_angle(const Array& student, const Array& teacher, double epsilon);
double probability_transfer(const Array& student, const Array& teacher, double epsilon);
double correlation_congruence(const Array& a, const Array& b);

}  // namespace retort::reference
