// A function applied to every element.
#pragma once

#include <cassert>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"

namespace retort::kernels::cpu {

// y[i] = f(x[i]); f sees and returns the accumulation type. In place is safe: element i depends on element i alone.
template <typename T, typename F>
void map(ConstView x, View y, F f) {
  assert(x.dtype == y.dtype && x.numel() == y.numel());
  const T* const in = x.as<T>();
  T* const out = y.as<T>();
  parallel_elements(y.numel(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(f(load(in[i])));
  });
}

template <typename T, typename F>
void map(ConstView a, ConstView b, View y, F f) {
  assert(a.dtype == y.dtype && b.dtype == y.dtype && a.numel() == y.numel() && b.numel() == y.numel());
  const T* const in_a = a.as<T>();
  const T* const in_b = b.as<T>();
  T* const out = y.as<T>();
  parallel_elements(y.numel(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(f(load(in_a[i]), load(in_b[i])));
  });
}

}  // namespace retort::kernels::cpu
