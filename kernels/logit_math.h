// What the losses between logits compute from a few numbers a row, shared by the CPU and the CUDA kernels. In f64:
// there is one of each a row, so the precision costs nothing.
#pragma once

#include <cmath>

#include "kernels/bf16.h"

namespace retort::kernels {

RETORT_HOST_DEVICE inline double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
RETORT_HOST_DEVICE inline double log_sigmoid(double x) {
  return (x < 0 ? x : 0.0) - std::log1p(std::exp(-std::abs(x)));
}

// exp(u) - exp(v), from the two and u - v: exact where they are nearly equal, and never above the larger of them.
RETORT_HOST_DEVICE inline double exponential_difference(double exp_u, double exp_v, double u_less_v) {
  return u_less_v < 0 ? exp_v * std::expm1(u_less_v) : -exp_u * std::expm1(-u_less_v);
}

// What one class with d = log(q / p) adds to KL(q || p): q d - q + p. These add up to the divergence and none is below
// 0, so nothing cancels where student p and teacher q nearly agree, which at a high temperature they always do: the
// terms q d are of the size of 1 / T, their sum is of that of 1 / T².
struct DivergenceTerm {
  double value;
  double slope;  // p - q

  RETORT_HOST_DEVICE DivergenceTerm(double p, double q, double d) {
    const double x = std::abs(d), below = std::expm1(-x);
    const bool series = x < 1e-4;  // where x and expm1(-x) cancel
    if (d < 0) {
      value = p * (series ? x * x * (0.5 - x * (1.0 / 3 - x / 8)) : -x * (1 + below) - below);
      slope = -p * below;
    } else {  // NaN too
      value = q * (series ? x * x * (0.5 - x * (1.0 / 6 - x / 24)) : x + below);
      slope = q * below;
    }
  }
};

// KL between two distributions over {yes, no}, and its derivative by the student's log-odds.
struct BinaryDivergence {
  double value, slope;

  // The teacher's log-odds log(q / (1 - q)), so that a q as near to 1 or 0 as it will loses nothing, and how far the
  // student's are above them.
  RETORT_HOST_DEVICE BinaryDivergence(double teacher, double difference) {
    const double student = teacher + difference;
    const DivergenceTerm yes(sigmoid(student), sigmoid(teacher), log_ratio(teacher, difference));
    const DivergenceTerm no(sigmoid(-student), sigmoid(-teacher), log_ratio(-teacher, -difference));
    value = yes.value + no.value;
    slope = yes.slope;
  }

 private:
  // log(sigmoid(x) / sigmoid(x + difference)).
  RETORT_HOST_DEVICE static double log_ratio(double x, double difference) {
    return std::abs(difference) < 0.5 ? std::log1p(sigmoid(-x) * std::expm1(-difference))
                                      : log_sigmoid(x) - log_sigmoid(x + difference);
  }
};

// a·b / (|a| |b| + epsilon), and its gradient by a: along_b b - along_a a.
struct Correlation {
  double value, along_b, along_a;

  RETORT_HOST_DEVICE Correlation(double aa, double bb, double ab, double epsilon) {
    const double length_a = std::sqrt(aa), length_b = std::sqrt(bb);
    along_b = 1.0 / (length_a * length_b + epsilon);
    value = ab * along_b;
    along_a = length_a > 0 ? value * along_b * length_b / length_a : 0.0;
  }
};

}  // namespace retort::kernels
