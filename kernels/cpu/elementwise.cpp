#include <cassert>
#include <cmath>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/parallel.h"
#include "kernels/philox.h"

namespace retort::kernels {
namespace cpu {
namespace {

// One sample of `size` elements.
template <typename T>
void dropout_sample(const T* x, T* y, std::int64_t size, float p, Accumulator<T> factor, const RandomKey& key,
                    std::uint32_t epoch, std::uint32_t sample) {
  for (std::int64_t e = 0; e < size; e += 4) {
    const Philox4 random = random_block(key.seed, key.purpose, epoch, sample, static_cast<std::uint32_t>(e / 4));
    const std::int64_t here = std::min<std::int64_t>(4, size - e);
    for (std::int64_t k = 0; k < here; ++k) {
      const bool dropped = uniform_of(random.v[k]) < p;
      y[e + k] = dropped ? T(0.0f) : static_cast<T>(load(x[e + k]) * factor);
    }
  }
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::fill(View out, double value, Stream) {
  dispatch_any("fill", out.dtype, [&]<typename T>(std::type_identity<T>) {
    const T element = convert_to<T>(value);
    T* const data = out.as<T>();
    parallel_elements(out.numel(),
                      [=](std::int64_t begin, std::int64_t end) { std::fill(data + begin, data + end, element); });
  });
}

void CpuBackend::convert(ConstView x, View y, Stream) {
  assert(x.numel() == y.numel());
  dispatch_any("convert", x.dtype, [&]<typename X>(std::type_identity<X>) {
    dispatch_any("convert", y.dtype, [&]<typename Y>(std::type_identity<Y>) {
      const X* const in = x.as<X>();
      Y* const out = y.as<Y>();
      parallel_elements(y.numel(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) out[i] = convert_to<Y>(in[i]);
      });
    });
  });
}

void CpuBackend::add(ConstView a, ConstView b, View y, Stream) {
  dispatch_floating("add", y.dtype,
                    [&]<typename T>(std::type_identity<T>) { map<T>(a, b, y, [](auto u, auto v) { return u + v; }); });
}

void CpuBackend::accumulate(ConstView x, View y, Stream) {
  assert(x.numel() == y.numel());
  dispatch_floating("accumulate", x.dtype, [&]<typename X>(std::type_identity<X>) {
    dispatch_floating("accumulate", y.dtype, [&]<typename Y>(std::type_identity<Y>) {
      const X* const in = x.as<X>();
      Y* const out = y.as<Y>();
      parallel_elements(y.numel(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) out[i] = convert_to<Y>(load(out[i]) + load(in[i]));
      });
    });
  });
}

void CpuBackend::scale(ConstView x, double factor, View y, Stream) {
  dispatch_floating("scale", y.dtype, [&]<typename T>(std::type_identity<T>) {
    map<T>(x, y, [f = static_cast<Accumulator<T>>(factor)](auto v) { return f * v; });
  });
}

void CpuBackend::scale_by(ConstView x, ConstView factor, View y, Stream) {
  dispatch_floating("scale_by", y.dtype, [&]<typename T>(std::type_identity<T>) {
    map<T>(x, y, [f = factor.as<Accumulator<T>>()[0]](auto v) { return f * v; });
  });
}

void CpuBackend::activation(ConstView x, Activation kind, View y, Stream) {
  dispatch_floating("activation", y.dtype, [&]<typename T>(std::type_identity<T>) {
    dispatch_activation(kind,
                        [&](auto act) { map<T>(x, y, [](auto v) { return activate<decltype(act)::value>(v); }); });
  });
}

void CpuBackend::activation_backward(ConstView y, ConstView dy, Activation kind, View dx, Stream) {
  dispatch_floating("activation_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    dispatch_activation(kind, [&](auto act) {
      map<T>(y, dy, dx, [](auto v, auto dv) { return activation_gradient<decltype(act)::value>(v, dv); });
    });
  });
}

void CpuBackend::square(ConstView x, View y, Stream) {
  dispatch_floating("square", y.dtype,
                    [&]<typename T>(std::type_identity<T>) { map<T>(x, y, [](auto v) { return v * v; }); });
}

void CpuBackend::square_backward(ConstView x, ConstView dy, View dx, Stream) {
  dispatch_floating("square_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    map<T>(x, dy, dx, [](auto v, auto dv) { return (v + v) * dv; });
  });
}

void CpuBackend::reciprocal_sqrt(ConstView x, double epsilon, View y, Stream) {
  dispatch_floating("reciprocal_sqrt", y.dtype, [&]<typename T>(std::type_identity<T>) {
    map<T>(x, y,
           [epsilon](auto v) { return static_cast<Accumulator<T>>(1 / std::sqrt(static_cast<double>(v) + epsilon)); });
  });
}

void CpuBackend::dropout(ConstView x, ConstView sample_ids, ConstView epoch, double p, RandomKey key, View y, Stream) {
  assert(x.dtype == y.dtype && x.numel() == y.numel() && x.shape.rank() >= 1);
  const std::int64_t samples = x.shape[0];
  if (x.numel() == 0) return;
  const std::int64_t size = x.numel() / samples;
  dispatch_floating("dropout", y.dtype, [&]<typename T>(std::type_identity<T>) {
    const auto factor = static_cast<Accumulator<T>>(p < 1 ? 1 / (1 - p) : 0);
    const auto now = static_cast<std::uint32_t>(epoch.as<std::int32_t>()[0]);
    parallel_for(samples, size * 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        dropout_sample(x.as<T>() + n * size, y.as<T>() + n * size, size, static_cast<float>(p), factor, key, now,
                       static_cast<std::uint32_t>(sample_ids.as<std::int32_t>()[n]));
      }
    });
  });
}

}  // namespace retort::kernels
