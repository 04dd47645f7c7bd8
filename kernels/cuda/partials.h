// The second stage of sums: a first kernel leaves one f64 a block, and these are added up in a fixed order.
#pragma once

#include "kernels/cuda/common.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

// Blocks of a first stage over `count` items of which a thread should have several: no more than fill the device.
inline std::int64_t blocks_for_sum(std::int64_t count, std::int64_t items_per_thread) {
  return std::clamp<std::int64_t>(ceil_div(count, items_per_thread * kBlockThreads), 1,
                                  std::int64_t{8} * multiprocessor_count());
}

// The sum of partial[0 .. count), the same bits in every thread of a block of kBlockThreads.
__device__ inline double total_of(const double* partial, std::int64_t count) {
  RETORT_SHARED(double, total, 1);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kBlockThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) total[0] = sum;
  __syncthreads();
  return total[0];  // an earlier call's readers are past block_sum's barrier
}

namespace {  // a kernel of each file's own

template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    finish_loss_kernel(const double* partial, std::int64_t count, double factor, A* loss) {
  const double sum = total_of(partial, count);
  if (threadIdx.x == 0) loss[0] = static_cast<A>(factor * sum);
}

}  // namespace

// f.operator()<A>() with the type of f64 or f32 data.
template <typename F>
void for_accumulated(DType dtype, const F& f) {
  if (dtype == DType::f64) {
    f.template operator()<double>();
  } else {
    f.template operator()<float>();
  }
}

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
