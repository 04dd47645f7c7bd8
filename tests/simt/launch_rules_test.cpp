// What the SIMT device finds of launches and arguments that a CPU would forgive, and that a warp which runs ahead shows
// a missing barrier.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/common.h"
#include "kernels/error.h"
#include "tests/simt/backend.h"
#include "tests/simt/heap.h"

namespace retort::simt {
namespace {

using kernels::launch;
using testing::HasSubstr;

// What running `work` complains of; empty where it does not.
template <typename F>
std::string complaint(const F& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Device memory for one test.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t count) : count_(count), data_(static_cast<T*>(heap().allocate(count * sizeof(T)))) {}
  ~Array() { heap().deallocate(data_, count_ * sizeof(T)); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* get() const { return data_; }

 private:
  std::size_t count_;
  T* data_;
};

// --- a warp that runs ahead ----------------------------------------------------------------------------------------

// Two sums over a block, one after the other in the same shared array: the second call's first barrier is what keeps
// a fast warp from overwriting what thread 0 still reads.
template <bool kFirstBarrier>
__device__ int sum_of_block(int x) {
  RETORT_SHARED(int, partial, 8);
  x = kernels::warp_sum(x);
  if constexpr (kFirstBarrier) __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  int sum = 0;
  if (threadIdx.x == 0) {
    for (int w = 0; w < 8; ++w) sum += partial[w];
  }
  return sum;
}
template <bool kFirstBarrier>
__global__ void two_sums_kernel(int* y) {
  const int first = sum_of_block<kFirstBarrier>(1), second = sum_of_block<kFirstBarrier>(100);
  if (threadIdx.x == 0) {
    y[0] = first;
    y[1] = second;
  }
}

// The last warp reads what the first writes, so here the first one must be ahead.
__global__ void read_late_kernel(int* y) {
  RETORT_SHARED(int, value, 1);
  if (threadIdx.x == 0) value[0] = 1;
  __syncthreads();
  const int mine = __shfl_sync(kernels::kFullWarp, value[0], 0);
  if (threadIdx.x == 0) value[0] = 2;
  if (threadIdx.x % 32 == 0) y[threadIdx.x / 32] = mine;
}

template <typename Kernel>
std::vector<LaneOrder> orders_that_differ(Kernel kernel, const std::vector<int>& expected) {
  std::vector<LaneOrder> found;
  for (const LaneOrder order : kLaneOrders) {
    set_lane_order(order);
    const Array<int> y(expected.size());
    launch(kernel, 1, 256, 0, {}, y.get());
    if (std::vector<int>(y.get(), y.get() + expected.size()) != expected) found.push_back(order);
  }
  set_lane_order(LaneOrder::forward);
  return found;
}

TEST(Ahead, SharedArrayReusedWithoutABarrierIsFound) {
  EXPECT_THAT(orders_that_differ(two_sums_kernel<true>, {256, 25600}), testing::IsEmpty());
  EXPECT_THAT(orders_that_differ(two_sums_kernel<false>, {256, 25600}), testing::Contains(LaneOrder::greedy_reversed));
  EXPECT_THAT(orders_that_differ(read_late_kernel, std::vector<int>(8, 1)),
              testing::Contains(LaneOrder::greedy_forward));
}

__global__ void order_kernel(int* y, int* next) {
  __shfl_sync(kernels::kFullWarp, 0, 0);
  y[atomicAdd(next, 1)] = static_cast<int>(threadIdx.x / 32);
  __syncthreads();
  __shfl_sync(kernels::kFullWarp, 0, 0);
  y[atomicAdd(next, 1)] = static_cast<int>(threadIdx.x / 32);
}

TEST(Ahead, OneWarpAfterTheOtherFromBarrierToBarrier) {
  for (const LaneOrder order : {LaneOrder::greedy_forward, LaneOrder::greedy_reversed}) {
    set_lane_order(order);
    const Array<int> y(256), next(1);
    next.get()[0] = 0;
    launch(order_kernel, 1, 128, 0, {}, y.get(), next.get());
    for (int i = 0; i < 256; ++i) {
      const int warp = i % 128 / 32;
      EXPECT_EQ(y.get()[i], order == LaneOrder::greedy_forward ? warp : 3 - warp) << i;
    }
  }
  set_lane_order(LaneOrder::forward);
}

// --- bounds and limits ---------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(64) bounded_kernel() {}
template <typename T>
__global__ void __launch_bounds__(2 * kernels::kBlockThreads, 2) bounded_template_kernel(T) {}
__global__ void free_kernel() {}

TEST(LaunchRules, BoundsHold) {
#ifndef __x86_64__
  GTEST_SKIP() << "launch bounds are read on x86-64 only";
#endif
  EXPECT_EQ(complaint([] { launch(bounded_kernel, 1, 64, 0, {}); }), "");
  EXPECT_THAT(complaint([] { launch(bounded_kernel, 1, 65, 0, {}); }),
              HasSubstr("65 threads a block; the kernel's launch bound is 64"));
  EXPECT_EQ(complaint([] { launch(bounded_template_kernel<int>, 1, dim3(32, 16), 0, {}, 1); }), "");
  EXPECT_THAT(complaint([] { launch(bounded_template_kernel<float>, 1, dim3(32, 17), 0, {}, 1.0f); }),
              HasSubstr("544 threads a block; the kernel's launch bound is 512"));
  EXPECT_EQ(complaint([] { launch(free_kernel, 1, 1024, 0, {}); }), "");
}

TEST(LaunchRules, LimitsOfGridAndBlock) {
  const auto of = [](dim3 grid, dim3 block) {
    const SparseLaunches sparse;
    return complaint([&] { launch(free_kernel, grid, block, 0, {}); });
  };
  EXPECT_EQ(of({0x7fffffff, 1, 1}, {1, 1, 1}), "");
  EXPECT_EQ(of({1, 65535, 65535}, {1, 1, 1}), "");
  for (const dim3 grid : {dim3(0x80000000u), dim3(1, 65536), dim3(1, 1, 65536)}) {
    EXPECT_THAT(of(grid, {1, 1, 1}), HasSubstr("beyond what a device allows"));
  }
  EXPECT_EQ(of({1, 1, 1}, {1, 16, 64}), "");
  for (const dim3 block : {dim3(1025), dim3(1, 1, 65), dim3(32, 33), dim3(0)}) {
    EXPECT_THAT(of({1, 1, 1}, block), HasSubstr("beyond what a device allows"));
  }
}

__global__ void static_shared_kernel() {
  RETORT_SHARED(float, tile, 1024);
  tile[0] = 1;
}

TEST(LaunchRules, StaticAndDynamicSharedMemoryTogether) {
  constexpr std::size_t kMost = 48 * 1024;
  EXPECT_EQ(complaint([] { launch(static_shared_kernel, 1, 1, kMost - 4096, {}); }), "");
  // Though the kernel never asks for it.
  EXPECT_THAT(complaint([] { launch(static_shared_kernel, 1, 1, kMost - 4095, {}); }),
              HasSubstr("49153 bytes of shared memory; a launch has 49152"));
  EXPECT_THAT(complaint([] { launch(free_kernel, 1, 1, kMost + 1, {}); }),
              HasSubstr("49153 bytes of dynamic shared memory; a launch has 49152"));
}

// --- arguments -----------------------------------------------------------------------------------------------------

struct Members {
  int count;
  const float* x;
};
__global__ void pointer_kernel(const float*) {}
__global__ void any_pointer_kernel(const void*) {}
__global__ void members_kernel(Members) {}

TEST(Arguments, PointersBelongToTheDevice) {
  const auto given = [](const float* p) { return complaint([&] { launch(pointer_kernel, 1, 1, 0, {}, p); }); };
  const Array<float> x(4);
  EXPECT_EQ(given(nullptr), "");
  EXPECT_EQ(given(x.get()), "");
  EXPECT_EQ(given(x.get() + 4), "");  // where an empty view may begin
  const float on_stack[2] = {};
  static float of_program[2] = {};
  const auto on_heap = std::make_unique<float[]>(2);
  const std::vector<float> large(1 << 20);
  for (const float* host :
       {on_stack + 0, static_cast<const float*>(of_program), static_cast<const float*>(on_heap.get()), large.data()}) {
    EXPECT_THAT(given(host), HasSubstr("argument 0 points to"));
  }
  EXPECT_THAT(given(x.get() + 5), HasSubstr("which is no memory of the device"));
  const float* gone = nullptr;
  {
    const Array<float> y(4);
    gone = y.get();
  }
  EXPECT_THAT(given(gone), HasSubstr("which is no memory of the device"));
  EXPECT_THAT(complaint([&] { launch(any_pointer_kernel, 1, 1, 0, {}, on_stack); }), HasSubstr("argument 0 points to"));
}

TEST(Arguments, PointersInStructsToo) {
  const auto given = [](const float* p) {
    return complaint([&] { launch(members_kernel, 1, 1, 0, {}, Members{1, p}); });
  };
  const Array<float> x(4);
  EXPECT_EQ(given(nullptr), "");
  EXPECT_EQ(given(x.get()), "");
  const float on_stack[2] = {};
  static float of_program[2] = {};
  EXPECT_THAT(given(on_stack), HasSubstr("argument 0 has at byte 8 the address"));
  EXPECT_THAT(given(of_program), HasSubstr("argument 0 has at byte 8 the address"));
}

TEST(Arguments, PointersAreAligned) {
  const Array<float> x(4);
  const auto* odd = reinterpret_cast<const float*>(reinterpret_cast<const char*>(x.get()) + 2);
  EXPECT_THAT(complaint([&] { launch(pointer_kernel, 1, 1, 0, {}, odd); }), HasSubstr("which is no multiple of 4"));
}

template <typename T, int N>
__global__ void pack_kernel(T* x, int at, bool store) {
  kernels::Pack<T, N> pack{};
  if (store) {
    kernels::store_pack<N>(x + at, pack);
  } else {
    pack = kernels::load_pack<N>(x + at);
    x[0] = pack.v[0];
  }
}

TEST(Arguments, PacksAreAligned) {
  const Array<float> x(16);
  for (const bool store : {true, false}) {
    for (const int at : {0, 4, 8}) {
      EXPECT_EQ(complaint([&] { launch(pack_kernel<float, 4>, 1, 1, 0, {}, x.get(), at, store); }), "");
      EXPECT_EQ(complaint([&] { launch(pack_kernel<float, 2>, 1, 1, 0, {}, x.get(), at + 2, store); }), "");
    }
    for (const int at : {1, 2, 7}) {
      EXPECT_THAT(complaint([&] { launch(pack_kernel<float, 4>, 1, 1, 0, {}, x.get(), at, store); }),
                  HasSubstr("which is no multiple of 16"));
    }
    EXPECT_THAT(complaint([&] { launch(pack_kernel<float, 2>, 1, 1, 0, {}, x.get(), 1, store); }),
                HasSubstr("which is no multiple of 8"));
  }
}

// --- rounding ------------------------------------------------------------------------------------------------------

__global__ void narrow_kernel(const float* x, bf16* y) {
  for (int i = static_cast<int>(threadIdx.x); i < 65536; i += 256) y[i] = kernels::narrow<bf16>(x[i]);
}

// The conversion of kernels and that of the host, over every upper half of a float and the lower halves at which the
// rounding turns: down, tie, up, and the carries into the exponent and into infinity.
TEST(Rounding, KernelsAndHostAgree) {
  const Array<float> x(65536);
  const Array<bf16> y(65536);
  for (const std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
    for (std::uint32_t high = 0; high < 65536; ++high) x.get()[high] = std::bit_cast<float>(high << 16 | low);
    launch(narrow_kernel, 1, 256, 0, {}, x.get(), y.get());
    for (std::uint32_t high = 0; high < 65536; ++high) {
      const bf16 host(x.get()[high]);
      if (std::isnan(x.get()[high])) {
        ASSERT_TRUE(std::isnan(static_cast<float>(y.get()[high])) && std::isnan(static_cast<float>(host))) << high;
      } else {
        ASSERT_EQ(y.get()[high].bits, host.bits) << high << " " << low;
        const bool up = low > 0x8000u || (low == 0x8000u && high % 2 == 1);
        ASSERT_EQ(host.bits, high + (up ? 1 : 0)) << high << " " << low;
      }
    }
  }
}

}  // namespace
}  // namespace retort::simt
