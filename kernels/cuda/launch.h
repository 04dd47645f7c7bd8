// What a .cu file needs of CUDA and nothing else, so that the same source compiles with nvcc for a device and, with
// RETORT_SIMT defined, with g++ for the SIMT tests (tests/simt/simt.h). With RETORT_STANDIN defined as well, launches go
// through CUDA's own calls to a stand-in device (tests/device). Rules for .cu files:
//  - kernels start through launch(), never through <<<>>>;
//  - shared memory comes from RETORT_SHARED and dynamic_shared(), never from a bare __shared__;
//  - no inline PTX, mma, TMA, cp.async or grid-wide cooperative groups: these stay in files of their own;
//  - kernels and helpers of one file lie in an anonymous namespace, everything else in RETORT_DEVICE_NAMESPACE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <type_traits>

#include "kernels/cuda/cuda_kernels.h"

#ifdef RETORT_SIMT
#include "tests/simt/simt.h"
#else
#include <cuda_runtime.h>
#endif
#ifdef RETORT_STANDIN
#include <cuda_runtime_api.h>

#include "tests/device/kernel.h"
#endif

// RETORT_SHARED(float, partial, 32); declares `partial`, 32 floats shared by the block. Not initialised: NaN in the
// SIMT tests. Two declarations are two pieces of memory, in two instantiations of a template too.
#ifdef RETORT_SIMT
#define RETORT_SHARED(type, name, count) \
  static char name##_key = 0;            \
  type* const name = ::retort::simt::shared<type>(&name##_key, (count))
#else
#define RETORT_SHARED(type, name, count) __shared__ type name[count]
#endif

// RETORT_UNROLL(4) before a loop: that many loads in flight.
#define RETORT_PRAGMA(text) _Pragma(#text)
#ifdef RETORT_SIMT
#define RETORT_UNROLL(count) RETORT_PRAGMA(GCC unroll count)
#else
#define RETORT_UNROLL(count) RETORT_PRAGMA(unroll count)
#endif

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

// The shared memory that launch() was given the size of, aligned to 16 bytes. One block has one such piece, whatever
// the type it is asked in.
template <typename T>
__device__ inline T* dynamic_shared() {
#ifdef RETORT_SIMT
  return static_cast<T*>(::retort::simt::dynamic_shared());
#else
  extern __shared__ __align__(16) unsigned char retort_dynamic_shared[];
  return reinterpret_cast<T*>(retort_dynamic_shared);
#endif
}

// The grid of a launch; remembers where launch() was called, for error messages.
struct Grid {
  dim3 blocks;
  std::source_location where;

  template <typename I>
  requires std::is_integral_v<I> Grid(I x, std::source_location w = std::source_location::current())
      : blocks(static_cast<unsigned>(x)), where(w), too_large(static_cast<std::uint64_t>(x) > 0x7fffffffu) {}
  Grid(dim3 b, std::source_location w = std::source_location::current()) : blocks(b), where(w) {}

  bool too_large = false;
  bool empty() const { return blocks.x == 0 || blocks.y == 0 || blocks.z == 0; }
};

namespace detail {
// Throws Error with the place of the launch and CUDA's text. (kernels/cuda/launch.cpp; tests/simt/simt.cpp)
[[noreturn]] void fail_launch(const Grid& grid, dim3 block, const char* problem);
#if !defined(RETORT_SIMT) || defined(RETORT_STANDIN)
void launch_kernel(const void* kernel, const Grid& grid, dim3 block, std::size_t shared_bytes, Stream stream,
                   void** args);
#endif
}  // namespace detail

// Queues `kernel` on `stream`: launch(add_kernel<float>, blocks, 256, 0, stream, x, y, n). An empty grid is no work.
// Throws Error with the place of the call where the launch is refused.
template <typename... Parameters>
void launch(void (*kernel)(Parameters...), Grid grid, dim3 block, std::size_t shared_bytes, Stream stream,
            std::type_identity_t<Parameters>... args) {
  static_assert(((!std::is_reference_v<Parameters> && std::is_trivially_copyable_v<Parameters>)&&...),
                "a kernel takes its arguments by value, as bytes");
  if (grid.too_large) detail::fail_launch(grid, block, "more than 2147483647 blocks");
  if (grid.empty()) return;
#if defined(RETORT_SIMT) && !defined(RETORT_STANDIN)
  static_cast<void>(stream);
  ::retort::simt::check_call(reinterpret_cast<const void*>(kernel), block, grid.where, args...);
  auto body = [&] { kernel(args...); };
  ::retort::simt::run(
      grid.blocks, block, shared_bytes, grid.where, [](void* b) { (*static_cast<decltype(body)*>(b))(); }, &body);
#else
#ifdef RETORT_STANDIN
  ::retort::standin::introduce_kernel(kernel, grid.where);
  (::retort::standin::clear_padding(args), ...);
#endif
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&args))...};
  detail::launch_kernel(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, stream, pointers);
#endif
}

// Multiprocessors of the current device: what grid-stride loops size their grids by. Few in the SIMT tests, so that
// the loops do go round.
int multiprocessor_count();

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
