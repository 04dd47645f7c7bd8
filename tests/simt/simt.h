// CUDA's words for g++: with this header a .cu file is plain C++, and run() executes its kernels on the CPU, every
// thread a fiber, one OS thread, blocks one after the other. What a device would let pass is an Error here:
//  - a barrier that some thread of the block does not reach, or reaches at another place of the source;
//  - a warp collective that some lane of its mask does not reach, or calls with another mask;
//  - a write outside an allocation or a shared array, or to freed memory (see heap.h; with ASan, at the very access).
// Shared memory and fresh allocations hold NaN. Threads can run forward, reversed or shuffled, so that a missing
// barrier changes the answer. Messages name the launch, the block and the thread.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>

#ifdef RETORT_STANDIN  // CUDA's own headers are there, with most of its words
#include <vector_types.h>
#else
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#endif
#define __launch_bounds__(...)

namespace retort::simt {

#ifdef RETORT_STANDIN
using ::dim3;
using ::uint3;
#else
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
#endif

// One OS thread runs all fibers, so these are plain variables, set whenever a thread goes on.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// --- control, for tests ----------------------------------------------------------------------------------------

// The order in which runnable threads of a block, and the blocks of a grid, get their turn.
enum class LaneOrder : std::uint8_t { forward, reversed, shuffled };
void set_lane_order(LaneOrder order, std::uint64_t seed = 1);
LaneOrder lane_order();
const char* name_of(LaneOrder order);

using Where = std::source_location;

// Executes a grid. Throws Error for a broken rule; the grid is then left unfinished.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, const Where& launch_site, void (*body)(void*), void* context);

// The shared array that belongs to `key`; the first call of a block makes it.
void* shared_bytes(const void* key, std::size_t bytes, std::size_t alignment);
template <typename T>
T* shared(const void* key, std::size_t count) {
  return static_cast<T*>(shared_bytes(key, count * sizeof(T), alignof(T)));
}
void* dynamic_shared();

// --- barriers and warp collectives -------------------------------------------------------------------------------

void __syncthreads(Where where = Where::current());
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace detail {
int lane();  // of the running thread, 0 to 31
// Waits until all lanes of `mask` have come here; returns what lane `source` brought.
std::uint64_t exchange(unsigned mask, std::uint64_t value, int source, const char* what, const Where& where);
// The same, returning one bit a lane of `mask`: whether it brought something other than 0.
unsigned vote(unsigned mask, bool value, const char* what, const Where& where);

template <typename T>
T shuffle(unsigned mask, T value, int source, const char* what, const Where& where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source, what, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace detail

inline void __syncwarp(unsigned mask = 0xffffffffu, Where where = Where::current()) {
  detail::vote(mask, false, "__syncwarp", where);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, Where where = Where::current()) {
  const int first = detail::lane() & ~(width - 1);
  return detail::shuffle(mask, value, first + (source & (width - 1)), "__shfl_sync", where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, Where where = Where::current()) {
  const int lane = detail::lane(), source = lane + static_cast<int>(delta);
  const bool inside = source < (lane & ~(width - 1)) + width;
  return detail::shuffle(mask, value, inside ? source : lane, "__shfl_down_sync", where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, Where where = Where::current()) {
  const int lane = detail::lane(), source = lane - static_cast<int>(delta);
  const bool inside = source >= (lane & ~(width - 1));
  return detail::shuffle(mask, value, inside ? source : lane, "__shfl_up_sync", where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, Where where = Where::current()) {
  const int lane = detail::lane(), source = lane ^ bits;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return detail::shuffle(mask, value, inside ? source : lane, "__shfl_xor_sync", where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return detail::vote(mask, predicate != 0, "__ballot_sync", where);
}
inline int __any_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return detail::vote(mask, predicate != 0, "__any_sync", where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return detail::vote(mask, predicate != 0, "__all_sync", where) == mask;
}

// --- atomics: threads give way only at barriers and collectives, so plain code is atomic ---------------------------

template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <typename T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = value;
  return old;
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

// --- loads and arithmetic ------------------------------------------------------------------------------------------
// (CUDA's __expf and its kin are names of glibc too: write expf.)

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
requires std::is_arithmetic_v<T>
constexpr T max(T a, std::type_identity_t<T> b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
  return a < b ? b : a;
}
template <typename T>
requires std::is_arithmetic_v<T>
constexpr T min(T a, std::type_identity_t<T> b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
  return b < a ? b : a;
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1.0 / std::sqrt(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}  // NaN gives 0, as on a device
// A volatile product keeps the compiler from contracting it with a sum that follows.
inline float __fmul_rn(float x, float y) {
  const volatile float product = x * y;
  return product;
}
inline float __fadd_rn(float x, float y) {
  const volatile float sum = x + y;
  return sum;
}
inline float __fsub_rn(float x, float y) {
  const volatile float difference = x - y;
  return difference;
}
inline float __fmaf_rn(float x, float y, float z) {
  return std::fma(x, y, z);
}
inline float __fdiv_rn(float x, float y) {
  return x / y;
}
inline float __fsqrt_rn(float x) {
  return std::sqrt(x);
}
inline int __float2int_rn(float x) {
  return static_cast<int>(std::nearbyint(x));
}
inline int __float2int_rd(float x) {
  return static_cast<int>(std::floor(x));
}
inline int __float2int_rz(float x) {
  return static_cast<int>(x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(unsigned x) {
  return std::countl_zero(x);
}
inline int __ffs(unsigned x) {
  return x == 0 ? 0 : std::countr_zero(x) + 1;
}

}  // namespace retort::simt

// CUDA has these at global scope.
using retort::simt::__all_sync;
using retort::simt::__any_sync;
using retort::simt::__ballot_sync;
using retort::simt::__clz;
using retort::simt::__fadd_rn;
using retort::simt::__fdiv_rn;
using retort::simt::__fdividef;
using retort::simt::__ffs;
using retort::simt::__float2int_rd;
using retort::simt::__float2int_rn;
using retort::simt::__float2int_rz;
using retort::simt::__fmaf_rn;
using retort::simt::__fmul_rn;
using retort::simt::__fsqrt_rn;
using retort::simt::__fsub_rn;
using retort::simt::__ldg;
using retort::simt::__popc;
using retort::simt::__saturatef;
using retort::simt::__shfl_down_sync;
using retort::simt::__shfl_sync;
using retort::simt::__shfl_up_sync;
using retort::simt::__shfl_xor_sync;
using retort::simt::__syncthreads;
using retort::simt::__syncwarp;
using retort::simt::__threadfence;
using retort::simt::__threadfence_block;
using retort::simt::__umulhi;
using retort::simt::atomicAdd;
using retort::simt::atomicCAS;
using retort::simt::atomicExch;
using retort::simt::atomicMax;
using retort::simt::atomicMin;
using retort::simt::blockDim;
using retort::simt::blockIdx;
using retort::simt::gridDim;
using retort::simt::max;
using retort::simt::min;
using retort::simt::rsqrt;
using retort::simt::rsqrtf;
using retort::simt::threadIdx;
using retort::simt::warpSize;
#ifndef RETORT_STANDIN
using retort::simt::dim3;
using retort::simt::uint3;
#endif
