// Kernels over the rows of a [rows, columns] matrix: one warp a row, eight rows a block.
#pragma once

#include "kernels/cuda/common.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

inline constexpr int kRowsPerBlock = kBlockThreads / 32;

inline std::int64_t grid_for_rows(std::int64_t rows) {
  return ceil_div(rows, kRowsPerBlock);
}

// The row of this warp; the same for all its lanes, so whole warps leave together where it is beyond the last.
__device__ inline std::int64_t row_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / 32;
}

// Calls f(c) for the columns of this lane.
template <typename F>
__device__ inline void for_columns(std::int64_t columns, const F& f) {
  for (std::int64_t c = threadIdx.x % 32; c < columns; c += 32) f(c);
}

// The same in every lane.
template <typename T>
__device__ inline Accumulation<T> row_largest(const T* row, std::int64_t columns) {
  using A = Accumulation<T>;
  A largest = -INFINITY;
  for_columns(columns, [&](std::int64_t c) {
    const A x = static_cast<A>(row[c]);
    largest = x > largest ? x : largest;
  });
  return warp_max(largest);
}

// The largest value of a row and the sum of exp(x - largest), the same in every lane. NaN in the row makes the sum NaN.
template <typename A>
struct RowExponentials {
  A largest, sum;
  __device__ A log_sum_exp() const { return largest + std::log(sum); }
};
template <typename T>
__device__ inline RowExponentials<Accumulation<T>> row_exponentials(const T* row, std::int64_t columns) {
  using A = Accumulation<T>;
  const A largest = row_largest(row, columns);
  A sum = 0;
  for_columns(columns, [&](std::int64_t c) { sum += std::exp(static_cast<A>(row[c]) - largest); });
  return {largest, warp_sum(sum)};
}

namespace {  // a kernel of each file's own

// out[j] (+)= factor * sum over rows of values[row, j]; one block, a fixed order.
template <typename V, typename A, int N, bool kAdd>
__global__ void __launch_bounds__(kBlockThreads)
    sum_small_kernel(const V* values, std::int64_t rows, double factor, A* out) {
  for (int j = 0; j < N; ++j) {
    double sum = 0;
    for (std::int64_t row = threadIdx.x; row < rows; row += kBlockThreads) {
      sum += static_cast<double>(values[row * N + j]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[j] = static_cast<A>((kAdd ? static_cast<double>(out[j]) : 0.0) + factor * sum);
  }
}

}  // namespace

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
