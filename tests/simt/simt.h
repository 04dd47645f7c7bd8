// CUDA's words for g++: with this header a .cu file is plain C++, and run() executes its kernels on the CPU, every
// thread a fiber, one OS thread, blocks one after the other. What a device would let pass is an Error here:
//  - a barrier that some thread of the block does not reach, or reaches at another place of the source;
//  - a warp collective that some lane of its mask does not reach, or calls with another mask;
//  - a write outside an allocation or a shared array, or to freed memory (see heap.h; with ASan, at the very access);
//  - a launch beyond a device's limits or the kernel's __launch_bounds__, or with more shared memory than it gets;
//  - an argument that points into host memory, or a pack that is not aligned.
// Shared memory and fresh allocations hold NaN. Threads run in one of five orders, so that a missing barrier changes
// the answer. Messages name the launch, the block and the thread.
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
// The bound, in warps, is the number of no-operations at the kernel's entry, where check_call() counts them: what else
// an attribute says of a function cannot be read back from its address.
#define __launch_bounds__(threads, ...) __attribute__((patchable_function_entry(((threads) + 31) / 32)))

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

// The order in which runnable threads of a block, and the blocks of a grid, get their turn. In the first three all
// threads go from one barrier or collective to the next; in the last two one warp, the first or the last that can,
// runs ahead of all others until a barrier of the block stops it. Of any two warps each is ahead in one of these.
enum class LaneOrder : std::uint8_t { forward, reversed, shuffled, greedy_forward, greedy_reversed };
inline constexpr LaneOrder kLaneOrders[] = {LaneOrder::forward, LaneOrder::reversed, LaneOrder::shuffled,
                                            LaneOrder::greedy_forward, LaneOrder::greedy_reversed};
void set_lane_order(LaneOrder order, std::uint64_t seed = 1);
LaneOrder lane_order();
const char* name_of(LaneOrder order);

// While one exists, launches run a few blocks only: the first, the last, and those beside powers of two; and the device
// says that it has so many multiprocessors that grids are not cut short. For problems whose indices pass 2^31 (see
// MappedMemory in heap.h).
class SparseLaunches {
 public:
  SparseLaunches();
  ~SparseLaunches();
  SparseLaunches(const SparseLaunches&) = delete;
  SparseLaunches& operator=(const SparseLaunches&) = delete;
};

using Where = std::source_location;

namespace detail {
// Throws Error where `block` has more threads than the kernel's launch bound, if it has one.
void check_bounds(const void* kernel, dim3 block, const Where& launch_site);
// Throws Error unless `pointer` is null or belongs to the device and is a multiple of `alignment`.
void check_pointer(const void* pointer, std::size_t alignment, std::size_t argument, const Where& launch_site);
// Throws Error where an aligned word among `bytes` is an address on the host's stack, or of its static or small dynamic
// data.
void check_members(const void* object, std::size_t bytes, std::size_t argument, const Where& launch_site);
[[noreturn]] void fail_alignment(const void* address, std::size_t alignment);

template <typename T>
void check_argument(const T& value, std::size_t index, const Where& launch_site) {
  if constexpr (std::is_pointer_v<T>) {
    std::size_t alignment = 1;
    if constexpr (!std::is_void_v<std::remove_pointer_t<T>>) alignment = alignof(std::remove_pointer_t<T>);
    check_pointer(value, alignment, index, launch_site);
  } else if constexpr (std::is_class_v<T> && alignof(T) >= alignof(void*)) {
#if __has_builtin(__builtin_clear_padding)  // elsewhere what lies between members would look like an address
    T members = value;
    __builtin_clear_padding(&members);
    check_members(&members, sizeof members, index, launch_site);
#endif
  }
}
}  // namespace detail

// What a device finds at a launch or, later, in the kernel: threads beyond the launch bounds, pointers into host memory.
template <typename... Arguments>
void check_call(const void* kernel, dim3 block, const Where& launch_site, const Arguments&... arguments) {
  detail::check_bounds(kernel, block, launch_site);
  std::size_t index = 0;
  (detail::check_argument(arguments, index++, launch_site), ...);
}

// For memory that is loaded or stored in pieces of `alignment` bytes.
inline void check_aligned(const void* address, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) detail::fail_alignment(address, alignment);
}

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

// cuda_bf16.h. Every NaN becomes the one of a device; between two neighbours the even one wins a tie.
struct Bfloat16 {
  std::uint16_t bits;
};
inline Bfloat16 __float2bfloat16_rz(float x) {
  if (std::isnan(x)) return {0x7fff};
  return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)};
}
inline Bfloat16 __float2bfloat16_rn(float x) {
  Bfloat16 y = __float2bfloat16_rz(x);
  if (std::isnan(x)) return y;
  const std::uint32_t rest = std::bit_cast<std::uint32_t>(x) & 0xffffu;
  if (rest > 0x8000u || (rest == 0x8000u && y.bits % 2 == 1)) ++y.bits;
  return y;
}
inline unsigned short __bfloat16_as_ushort(Bfloat16 x) {
  return x.bits;
}

}  // namespace retort::simt

// CUDA has these at global scope.
using retort::simt::__all_sync;
using retort::simt::__any_sync;
using retort::simt::__ballot_sync;
using retort::simt::__bfloat16_as_ushort;
using retort::simt::__clz;
using retort::simt::__fadd_rn;
using retort::simt::__fdiv_rn;
using retort::simt::__fdividef;
using retort::simt::__ffs;
using retort::simt::__float2bfloat16_rn;
using retort::simt::__float2bfloat16_rz;
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
