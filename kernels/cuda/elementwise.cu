// Elementwise kernels: grid-stride loops over 16-byte packs.
#include <bit>

#include "kernels/cuda/map.h"
#include "kernels/philox.h"

namespace retort::kernels {
namespace {

// --- what map() is given -------------------------------------------------------------------------------------------

template <typename A>
struct Add {
  __device__ A operator()(A a, A b) const { return a + b; }
};
template <typename A>
struct Scale {
  A factor;
  __device__ A operator()(A a) const { return a * factor; }
};
template <typename A>
struct ScaleBy {
  const A* factor;
  __device__ A operator()(A a) const { return a * factor[0]; }
};
template <typename A>
struct Activate {
  Activation kind;
  __device__ A operator()(A a) const { return activate(a, kind); }
};
template <typename A>
struct ActivateBackward {
  Activation kind;
  __device__ A operator()(A y, A dy) const { return is_open(y, kind) ? dy : A(0); }
};
template <typename A>
struct Square {
  __device__ A operator()(A a) const { return a * a; }
};
template <typename A>
struct SquareBackward {
  __device__ A operator()(A x, A dy) const { return A(2) * x * dy; }
};

template <typename A>
struct ReciprocalSqrt {
  A epsilon;
  __device__ A operator()(A x) const { return A(1) / std::sqrt(x + epsilon); }
};

// --- fill and convert ----------------------------------------------------------------------------------------------

template <typename Word>
__global__ void __launch_bounds__(kBlockThreads) fill_kernel(Word* y, std::int64_t count, bool packed, Word value) {
  constexpr int kN = kPackOf<Word>;
  for_packs<kN>(
      count, packed,
      [&](std::int64_t i) {
        Pack<Word, kN> pack;
        for (int k = 0; k < kN; ++k) pack.v[k] = value;
        store_pack<kN>(y + i, pack);
      },
      [&](std::int64_t i) { y[i] = value; });
}

template <typename Word>
void fill_words(View y, Word value, Stream stream) {
  launch(fill_kernel<Word>, grid_for(ceil_div(y.numel(), kPackOf<Word>)), kBlockThreads, 0, stream, y.as<Word>(),
         y.numel(), aligned(y.as<Word>()), value);
}

// The type that holds values of both X and Y.
template <typename X, typename Y>
using Wider = std::conditional_t<std::is_same_v<X, double> || std::is_same_v<Y, double>, double, float>;

template <typename Y, typename W>
__device__ inline Y to_element(W x) {
  return narrow<Y>(static_cast<Accumulation<Y>>(x));
}

// y = x, or y += x.
template <typename X, typename Y, bool kAdd>
__global__ void __launch_bounds__(kBlockThreads) convert_kernel(const X* x, Y* y, std::int64_t count, bool packed) {
  using W = Wider<X, Y>;
  constexpr int kN = kPackOfBoth<X, Y>;
  const auto widen = [](auto v) { return static_cast<W>(static_cast<Accumulation<decltype(v)>>(v)); };
  for_packs<kN>(
      count, packed,
      [&](std::int64_t i) {
        const Pack<X, kN> px = load_pack<kN>(x + i);
        Pack<Y, kN> py;
        if constexpr (kAdd) py = load_pack<kN>(y + i);
        for (int k = 0; k < kN; ++k) {
          py.v[k] = to_element<Y>(kAdd ? widen(py.v[k]) + widen(px.v[k]) : widen(px.v[k]));
        }
        store_pack<kN>(y + i, py);
      },
      [&](std::int64_t i) { y[i] = to_element<Y>(kAdd ? widen(y[i]) + widen(x[i]) : widen(x[i])); });
}

template <bool kAdd>
void convert_floating(ConstView x, View y, Stream stream) {
  for_floating(x.dtype, [&]<typename X>() {
    for_floating(y.dtype, [&]<typename Y>() {
      if constexpr (kAdd || !std::is_same_v<X, Y>) {
        launch(convert_kernel<X, Y, kAdd>, grid_for(ceil_div(y.numel(), kPackOfBoth<X, Y>)), kBlockThreads, 0, stream,
               x.as<X>(), y.as<Y>(), y.numel(), aligned(x.as<X>(), y.as<Y>()));
      }
    });
  });
}

// Conversions from or to integers are rare and small: one kernel for all of them, by way of double, which holds every
// value of the other types.
__global__ void __launch_bounds__(kBlockThreads)
    convert_any_kernel(const void* x, DType from, void* y, DType to, std::int64_t count) {
  for_packs<1>(
      count, false, [](std::int64_t) {},
      [&](std::int64_t i) {
        double value = 0;
        switch (from) {
          case DType::f64:
            value = static_cast<const double*>(x)[i];
            break;
          case DType::f32:
            value = static_cast<const float*>(x)[i];
            break;
          case DType::bf16:
            value = static_cast<float>(static_cast<const bf16*>(x)[i]);
            break;
          case DType::i32:
            value = static_cast<const std::int32_t*>(x)[i];
            break;
          case DType::u8:
            value = static_cast<const std::uint8_t*>(x)[i];
            break;
        }
        switch (to) {
          case DType::f64:
            static_cast<double*>(y)[i] = value;
            break;
          case DType::f32:
            static_cast<float*>(y)[i] = static_cast<float>(value);
            break;
          case DType::bf16:
            static_cast<bf16*>(y)[i] = to_element<bf16>(value);
            break;
          case DType::i32:
            static_cast<std::int32_t*>(y)[i] = static_cast<std::int32_t>(value);
            break;
          case DType::u8:
            static_cast<std::uint8_t*>(y)[i] = static_cast<std::uint8_t>(value);
            break;
        }
      });
}

// --- dropout -------------------------------------------------------------------------------------------------------

// One thread per four elements of a sample: one Philox block.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    dropout_kernel(const T* x, const std::int32_t* sample_ids, const std::int32_t* epoch, float p,
                   Accumulation<T> factor, RandomKey key, T* y, std::int64_t samples, std::int64_t features) {
  using A = Accumulation<T>;
  const std::int64_t groups = ceil_div(features, 4);
  const auto epoch_now = static_cast<std::uint32_t>(epoch[0]);
  for_packs<1>(
      samples * groups, false, [](std::int64_t) {},
      [&](std::int64_t i) {
        const std::int64_t sample = i / groups, group = i % groups;
        const Philox4 random =
            random_block(key.seed, key.purpose, epoch_now, static_cast<std::uint32_t>(sample_ids[sample]),
                         static_cast<std::uint32_t>(group));
        const std::int64_t first = sample * features;
        for (int k = 0; k < 4; ++k) {
          const std::int64_t e = group * 4 + k;
          if (e >= features) break;
          const bool dropped = uniform_of(random.v[k]) < p;
          y[first + e] = narrow<T>(dropped ? A(0) : static_cast<A>(x[first + e]) * factor);
        }
      });
}

}  // namespace

void CudaKernels::fill(View out, double value, Stream stream) {
  switch (out.dtype) {
    case DType::f64:
      return fill_words(out, std::bit_cast<std::uint64_t>(value), stream);
    case DType::f32:
      return fill_words(out, std::bit_cast<std::uint32_t>(static_cast<float>(value)), stream);
    case DType::bf16:
      return fill_words(out, bf16(static_cast<float>(value)).bits, stream);
    case DType::i32:
      return fill_words(out, static_cast<std::uint32_t>(static_cast<std::int32_t>(value)), stream);
    case DType::u8:
      return fill_words(out, static_cast<std::uint8_t>(value), stream);
  }
}

void CudaKernels::convert(ConstView x, View y, Stream stream) {
  if (x.dtype == y.dtype) return copy(x, y, stream);
  if (is_floating(x.dtype) && is_floating(y.dtype)) return convert_floating<false>(x, y, stream);
  launch(convert_any_kernel, grid_for(y.numel()), kBlockThreads, 0, stream, x.data, x.dtype, y.data, y.dtype,
         y.numel());
}

void CudaKernels::accumulate(ConstView x, View y, Stream stream) {
  convert_floating<true>(x, y, stream);
}

void CudaKernels::add(ConstView a, ConstView b, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() { map<T>(a, b, y, Add<Accumulation<T>>{}, stream); });
}

void CudaKernels::scale(ConstView x, double factor, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    map<T>(x, {}, y, Scale<A>{static_cast<A>(factor)}, stream);
  });
}

void CudaKernels::scale_by(ConstView x, ConstView factor, View y, Stream stream) {
  for_floating(y.dtype,
               [&]<typename T>() { map<T>(x, {}, y, ScaleBy<Accumulation<T>>{factor.as<Accumulation<T>>()}, stream); });
}

void CudaKernels::activation(ConstView x, Activation kind, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() { map<T>(x, {}, y, Activate<Accumulation<T>>{kind}, stream); });
}

void CudaKernels::activation_backward(ConstView y, ConstView dy, Activation kind, View dx, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() { map<T>(y, dy, dx, ActivateBackward<Accumulation<T>>{kind}, stream); });
}

void CudaKernels::square(ConstView x, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() { map<T>(x, {}, y, Square<Accumulation<T>>{}, stream); });
}

void CudaKernels::square_backward(ConstView x, ConstView dy, View dx, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() { map<T>(x, dy, dx, SquareBackward<Accumulation<T>>{}, stream); });
}

void CudaKernels::reciprocal_sqrt(ConstView x, double epsilon, View y, Stream stream) {
  if (x.dtype == DType::f64) {
    map<double>(x, {}, y, ReciprocalSqrt<double>{epsilon}, stream);
  } else {
    map<float>(x, {}, y, ReciprocalSqrt<float>{static_cast<float>(epsilon)}, stream);
  }
}

void CudaKernels::dropout(ConstView x, ConstView sample_ids, ConstView epoch, double p, RandomKey key, View y,
                          Stream stream) {
  const std::int64_t samples = sample_ids.numel();
  if (samples == 0) return;
  const std::int64_t features = x.numel() / samples;
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    launch(dropout_kernel<T>, grid_for(samples * ceil_div(features, 4)), kBlockThreads, 0, stream, x.as<T>(),
           sample_ids.as<std::int32_t>(), epoch.as<std::int32_t>(), static_cast<float>(p),
           p < 1 ? static_cast<A>(1 / (1 - p)) : A(0), key, y.as<T>(), samples, features);
  });
}

}  // namespace retort::kernels
