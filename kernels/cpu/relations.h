// What the losses between relations share.
#pragma once

#include <type_traits>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace retort::kernels::cpu {

// f(std::type_identity<A>{}) with the type of f64 or f32 data.
template <typename F>
void dispatch_accumulated(DType dtype, F&& f) {
  if (dtype == DType::f64) {
    f(std::type_identity<double>{});
  } else {
    f(std::type_identity<float>{});
  }
}

// The sum of row(i) over all rows, in their order.
template <typename Row>
double sum_of_rows(std::int64_t rows, std::int64_t work_per_row, const Row& row) {
  std::vector<double> values(static_cast<std::size_t>(rows));
  parallel_for(rows, work_per_row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) values[static_cast<std::size_t>(i)] = row(i);
  });
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

}  // namespace retort::kernels::cpu
