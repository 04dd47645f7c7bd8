// Kernels that go over a [rows, columns] matrix column by column: batch normalisation and sums over rows. A block of
// tx * ty threads owns tx packs of neighbouring columns and a range of rows; its threads walk down the rows, so loads
// are coalesced along the columns and per-column values stay in registers. Sums over rows are taken in two stages in a
// fixed order, so runs repeat bit for bit.
#pragma once

#include "kernels/cuda/common.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

struct ColumnPlan {
  dim3 grid, block;  // grid.x over ranges of rows, grid.y over packs of columns
  std::int64_t rows_per_block;
  std::int64_t row_blocks() const { return grid.x; }
};

// `width` columns a pack; at most `blocks_per_processor` blocks a multiprocessor.
inline ColumnPlan plan_columns(std::int64_t rows, std::int64_t columns, int width, int blocks_per_processor) {
  const std::int64_t packs = ceil_div(columns, width);
  unsigned tx = 1;
  while (tx < packs && tx < 32) tx *= 2;
  const unsigned ty = kBlockThreads / tx;
  const std::int64_t column_blocks = ceil_div(packs, tx);
  // Four rows a thread at least: fewer are not worth a block's overhead.
  const std::int64_t wanted =
      std::max<std::int64_t>(1, std::int64_t{blocks_per_processor} * multiprocessor_count() / column_blocks);
  const std::int64_t rows_per_block = std::max<std::int64_t>(ceil_div(rows, wanted), std::int64_t{4} * ty);
  const auto row_blocks = static_cast<unsigned>(ceil_div(rows, rows_per_block));
  return {{row_blocks, static_cast<unsigned>(column_blocks)}, {tx, ty}, rows_per_block};
}

// A thread's share of the matrix.
struct ColumnShare {
  std::int64_t column, first, last;  // rows first, first + blockDim.y, ... below last
  __device__ ColumnShare(std::int64_t rows, std::int64_t rows_per_block, int width)
      : column((static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * width),
        first(blockIdx.x * rows_per_block + threadIdx.y) {
    const std::int64_t end = (blockIdx.x + std::int64_t{1}) * rows_per_block;
    last = end < rows ? end : rows;
  }
};

// Adds up x over the threads of a block that share a column pack; the result is right in the threads with
// threadIdx.y == 0. `shared` holds N * kBlockThreads values.
template <int N, typename A>
__device__ inline void sum_over_rows(A (&x)[N], A* shared) {
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // an earlier call's readers are done
  for (int k = 0; k < N; ++k) shared[k * kBlockThreads + thread] = x[k];
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      for (int k = 0; k < N; ++k) {
        shared[k * kBlockThreads + thread] = x[k] += shared[k * kBlockThreads + thread + half * blockDim.x];
      }
    }
  }
}

// Calls f(std::integral_constant<int, R>, row) for a thread's rows: groups of R = kGroup, row, row + blockDim.y, ..., and
// R = 1 for those left over. f loads its R packs before it computes or stores anything, so that as many are in flight.
template <int kGroup, typename F>
__device__ inline void for_row_groups(const ColumnShare& share, const F& f) {
  const std::int64_t step = blockDim.y;
  std::int64_t row = share.first;
  for (; row + (kGroup - 1) * step < share.last; row += kGroup * step) f(std::integral_constant<int, kGroup>{}, row);
  for (; row < share.last; row += step) f(std::integral_constant<int, 1>{}, row);
}

// The packs at `at`, `at` + pitch, ...
template <int N, int R, typename T>
__device__ inline void load_packs(const T* at, std::int64_t pitch, Pack<T, N> (&packs)[R]) {
  for (int r = 0; r < R; ++r) packs[r] = load_pack<N>(at + r * pitch);
}

// Values of neighbouring columns, loaded as packs.
template <int N, typename A>
__device__ inline void load_columns(const A* at, A (&values)[N]) {
  const Pack<A, N> pack = load_pack<N>(at);
  for (int k = 0; k < N; ++k) values[k] = pack.v[k];
}

inline constexpr unsigned kMergeColumns = 32, kMergeRows = 16;  // the block of the second stage

// The sum of x over the threads of such a block that share a column, the same in all of them.
__device__ inline double sum_over_merge_rows(double x, double* shared) {
  const unsigned thread = threadIdx.y * kMergeColumns + threadIdx.x;
  __syncthreads();  // an earlier call's readers are done
  shared[thread] = x;
  for (unsigned half = kMergeRows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) shared[thread] = x += shared[thread + half * kMergeColumns];
  }
  __syncthreads();
  return shared[threadIdx.x];
}

namespace {  // a kernel of each file's own

// y[c] = sum over b of partial[b, c]; columns beyond `columns` of the partials go to y2, if there is one.
template <typename A>
__global__ void __launch_bounds__(kMergeColumns* kMergeRows)
    sum_partials_kernel(const A* partial, std::int64_t blocks, std::int64_t columns, A* y, A* y2) {
  RETORT_SHARED(double, sums, kMergeColumns* kMergeRows);
  const std::int64_t width = y2 == nullptr ? columns : 2 * columns;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kMergeColumns + threadIdx.x;
  double sum = 0;
  if (column < width) {
    RETORT_UNROLL(4)
    for (std::int64_t b = threadIdx.y; b < blocks; b += kMergeRows) sum += partial[b * width + column];
  }
  sum = sum_over_merge_rows(sum, sums);
  if (threadIdx.y == 0 && column < width) (column < columns ? y[column] : y2[column - columns]) = static_cast<A>(sum);
}

}  // namespace

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
