// What the hand-written kernels share: element types, 16-byte packs, reductions over a warp and a block, dispatch over
// element types, and temporary memory.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/cuda/launch.h"

#ifndef RETORT_SIMT
#include <cuda_bf16.h>
#endif

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

inline constexpr int kBlockThreads = 256;
inline constexpr unsigned kFullWarp = 0xffffffffu;

// --- element types -------------------------------------------------------------------------------------------------

template <typename T>
struct AccumulationOf {
  using type = float;
};
template <>
struct AccumulationOf<double> {
  using type = double;
};
template <typename T>
using Accumulation = typename AccumulationOf<T>::type;  // "A" of kernels.h

// An accumulated value as an element.
template <typename T>
__device__ inline T narrow(Accumulation<T> x) {
  if constexpr (std::is_same_v<T, bf16>) {  // the same rounding as bf16's constructor, in one instruction
    bf16 y;
    y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
    return y;
  } else {
    return static_cast<T>(x);
  }
}

// Calls f.operator()<T>() with the C++ type of a floating dtype.
template <typename F>
void for_floating(DType dtype, const F& f) {
  if (dtype == DType::f64) {
    f.template operator()<double>();
  } else if (dtype == DType::f32) {
    f.template operator()<float>();
  } else {
    f.template operator()<bf16>();
  }
}

// --- packs: N elements that one thread loads or stores at once -----------------------------------------------------

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T v[N];
};
// The width of a 16-byte pack.
template <typename T>
inline constexpr int kPackOf = 16 / static_cast<int>(sizeof(T));
// Of a pass over arrays of both types.
template <typename X, typename Y>
inline constexpr int kPackOfBoth = kPackOf<X> < kPackOf<Y> ? kPackOf<X> : kPackOf<Y>;

template <int N, typename T>
__device__ inline Pack<T, N> load_pack(const T* at) {
#ifdef RETORT_SIMT
  ::retort::simt::check_aligned(at, alignof(Pack<T, N>));
#endif
  return *reinterpret_cast<const Pack<T, N>*>(at);
}
template <int N, typename T>
__device__ inline void store_pack(T* at, const Pack<T, N>& pack) {
#ifdef RETORT_SIMT
  ::retort::simt::check_aligned(at, alignof(Pack<T, N>));
#endif
  *reinterpret_cast<Pack<T, N>*>(at) = pack;
}

// True when all pointers allow packs (empty views do).
template <typename... Pointers>
bool aligned(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls pack(i) for the first element i of every whole pack of N, and one(i) for the elements left over, or for all of
// them where packs are not allowed. The work is dealt to all threads of the grid.
template <int N, typename P, typename S>
__device__ inline void for_packs(std::int64_t count, bool packed, const P& pack, const S& one) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t whole = packed ? count / N * N : 0;
  for (std::int64_t i = thread * N; i < whole; i += stride * N) pack(i);
  for (std::int64_t i = whole + thread; i < count; i += stride) one(i);
}

RETORT_HOST_DEVICE constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Blocks of kBlockThreads for a grid-stride loop over `count` items: no more than fill the device.
inline std::int64_t grid_for(std::int64_t count) {
  return std::min<std::int64_t>(ceil_div(count, kBlockThreads), std::int64_t{8} * multiprocessor_count());
}

// --- reductions ----------------------------------------------------------------------------------------------------

// Every lane gets the same bits: the additions of a butterfly are commutative.
template <typename A>
__device__ inline A warp_sum(A x) {
  for (int bit = 16; bit > 0; bit /= 2) x += __shfl_xor_sync(kFullWarp, x, bit);
  return x;
}
template <typename A>
__device__ inline A warp_max(A x) {
  for (int bit = 16; bit > 0; bit /= 2) {
    const A other = __shfl_xor_sync(kFullWarp, x, bit);
    x = other > x ? other : x;
  }
  return x;
}

// The sum over a block of kBlockThreads threads, in a fixed order; only thread 0 gets it.
template <typename A>
__device__ inline A block_sum(A x) {
  constexpr int kWarps = kBlockThreads / 32;
  RETORT_SHARED(A, partial, kWarps);
  x = warp_sum(x);
  __syncthreads();  // an earlier call's readers are done
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  A sum = 0;
  if (threadIdx.x == 0) {
    for (int w = 0; w < kWarps; ++w) sum += partial[w];
  }
  return sum;
}

// --- activations ---------------------------------------------------------------------------------------------------

// NaN stays NaN.
template <typename A>
__device__ inline A activate(A x, Activation kind) {
  if (kind == Activation::identity) return x;
  if (x <= A(0)) return A(0);
  return kind == Activation::relu6 && x >= A(6) ? A(6) : x;
}
// Whether the activation that gave y let the gradient through; NaN does, so that it is not lost.
template <typename A>
__device__ inline bool is_open(A y, Activation kind) {
  return kind == Activation::identity || !(y <= A(0) || (kind == Activation::relu6 && y >= A(6)));
}

// --- temporary memory ----------------------------------------------------------------------------------------------

// `count` elements from the backend's pool, returned in stream order when this goes out of scope.
template <typename T>
class Workspace {
 public:
  Workspace(Backend& backend, std::int64_t count, Stream stream)
      : backend_(backend),
        bytes_(static_cast<std::size_t>(count) * sizeof(T)),
        stream_(stream),
        data_(static_cast<T*>(backend.allocate(bytes_, stream))) {}
  ~Workspace() { backend_.deallocate(data_, bytes_, stream_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* get() const { return data_; }

 private:
  Backend& backend_;
  std::size_t bytes_;
  Stream stream_;
  T* data_;
};

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
