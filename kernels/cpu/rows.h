// What softmax and the losses share.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu/dispatch.h"

namespace retort::kernels::cpu {

template <typename T>
Accumulator<T> largest_of(const T* x, std::int64_t columns) {
  Accumulator<T> max = load(x[0]);
  for (std::int64_t c = 1; c < columns; ++c) {
    const Accumulator<T> v = load(x[c]);
    max = v > max ? v : max;
  }
  return max;
}

// The largest element of a row, and the sum of exp(x - max) in f64. A NaN in the row ends up in the sum.
template <typename T>
struct RowExponentials {
  using A = Accumulator<T>;

  RowExponentials(const T* x, std::int64_t columns) : max(largest_of(x, columns)) {
    for (std::int64_t c = 0; c < columns; ++c) sum += static_cast<double>(std::exp(load(x[c]) - max));
  }
  double log_sum_exp() const { return static_cast<double>(max) + std::log(sum); }

  A max;
  double sum = 0;
};

}  // namespace retort::kernels::cpu
