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

// KL between two distributions over {yes, no}, and its derivative by the student's log-odds.
struct BinaryDivergence {
  double value, slope;

  // The arguments are log-odds log(p / (1 - p)), so that a p as near to 1 or 0 as it will loses nothing.
  RETORT_HOST_DEVICE BinaryDivergence(double student, double teacher) {
    value = sigmoid(teacher) * (log_sigmoid(teacher) - log_sigmoid(student)) +
            sigmoid(-teacher) * (log_sigmoid(-teacher) - log_sigmoid(-student));
    // Both near 1: the difference of what is missing to 1.
    slope = student > 0 && teacher > 0 ? sigmoid(-teacher) - sigmoid(-student) : sigmoid(student) - sigmoid(teacher);
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
