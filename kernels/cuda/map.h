// y = f(a) and y = f(a, b), element by element; f sees and returns the accumulation type. In place is safe.
#pragma once

#include "kernels/cuda/common.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {
namespace {  // kernels of each file's own

template <typename T, typename F>
__global__ void __launch_bounds__(kBlockThreads)
    map_kernel(const T* a, const T* b, T* y, std::int64_t count, bool packed, F f) {
  using A = Accumulation<T>;
  constexpr int kN = kPackOf<T>;
  constexpr bool kBinary = std::is_invocable_v<F, A, A>;
  for_packs<kN>(
      count, packed,
      [&](std::int64_t i) {
        const Pack<T, kN> pa = load_pack<kN>(a + i);
        Pack<T, kN> py;
        if constexpr (kBinary) {
          const Pack<T, kN> pb = load_pack<kN>(b + i);
          for (int k = 0; k < kN; ++k) py.v[k] = narrow<T>(f(static_cast<A>(pa.v[k]), static_cast<A>(pb.v[k])));
        } else {
          for (int k = 0; k < kN; ++k) py.v[k] = narrow<T>(f(static_cast<A>(pa.v[k])));
        }
        store_pack<kN>(y + i, py);
      },
      [&](std::int64_t i) {
        if constexpr (kBinary) {
          y[i] = narrow<T>(f(static_cast<A>(a[i]), static_cast<A>(b[i])));
        } else {
          y[i] = narrow<T>(f(static_cast<A>(a[i])));
        }
      });
}

template <typename T, typename F>
void map(ConstView a, ConstView b, View y, F f, Stream stream) {
  const bool packed = aligned(a.as<T>(), b.as<T>(), y.as<T>());
  launch(map_kernel<T, F>, grid_for(ceil_div(y.numel(), kPackOf<T>)), kBlockThreads, 0, stream, a.as<T>(), b.as<T>(),
         y.as<T>(), y.numel(), packed, f);
}

}  // namespace
}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
