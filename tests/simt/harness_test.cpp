// The SIMT harness must be able to fail: each test plants a mistake that a GPU would let pass now and then, and
// requires it to be caught, by name and place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/cuda/launch.h"
#include "kernels/error.h"
#include "tests/simt/backend.h"
#include "tests/simt/heap.h"

namespace retort::simt {
namespace {

using kernels::launch;
using testing::HasSubstr;

class Harness : public testing::Test {
 protected:
  void TearDown() override { set_lane_order(LaneOrder::forward); }

  // What running `work` complains of; empty where it does not.
  template <typename F>
  static std::string complaint(const F& work) {
    try {
      work();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

// Device memory for one test.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t count) : count_(count), data_(static_cast<T*>(heap().allocate(count * sizeof(T)))) {}
  ~Array() {
    if (data_ != nullptr) heap().deallocate(data_, count_ * sizeof(T));
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* get() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }
  std::vector<T> values() const { return {data_, data_ + count_}; }
  T* free() {
    heap().deallocate(data_, count_ * sizeof(T));
    return std::exchange(data_, nullptr);
  }

 private:
  std::size_t count_;
  T* data_;
};

// --- barriers ------------------------------------------------------------------------------------------------------

__global__ void mirror_kernel(int* y, bool with_barrier) {
  RETORT_SHARED(int, tile, 64);
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  y[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

TEST_F(Harness, MissingBarrierChangesTheAnswerBetweenOrders) {
  std::vector<std::vector<int>> with, without;
  for (const LaneOrder order : kLaneOrders) {
    set_lane_order(order);
    Array<int> y(64);
    launch(mirror_kernel, 1, 64, 0, {}, y.get(), true);
    with.push_back(y.values());
    launch(mirror_kernel, 1, 64, 0, {}, y.get(), false);
    without.push_back(y.values());
  }
  std::vector<int> expected(64);
  std::iota(expected.rbegin(), expected.rend(), 0);
  for (const auto& answer : with) EXPECT_EQ(answer, expected);
  for (const auto& answer : without) EXPECT_NE(answer, expected);
  EXPECT_NE(without[0], without[1]);
  EXPECT_NE(without[0], without[2]);
  EXPECT_NE(without[1], without[2]);
}

__global__ void divergent_barrier_kernel(int* y) {
  if (threadIdx.x < 40) __syncthreads();
  y[threadIdx.x] = 1;
}

TEST_F(Harness, BarrierThatSomeThreadsSkip) {
  for (const LaneOrder order : kLaneOrders) {
    set_lane_order(order);
    Array<int> y(64);
    const std::string text = complaint([&] { launch(divergent_barrier_kernel, 1, 64, 0, {}, y.get()); });
    EXPECT_THAT(text, HasSubstr("__syncthreads at harness_test.cpp:"));
    EXPECT_THAT(text, HasSubstr("in divergent_barrier_kernel is not reached by thread (40, 0, 0), which has returned"));
    EXPECT_THAT(text, HasSubstr("block (0, 0, 0), thread (0, 0, 0)"));
  }
}

__global__ void two_barriers_kernel() {
  if (threadIdx.y == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST_F(Harness, BarrierReachedAtTwoPlaces) {
  const std::string text = complaint([&] { launch(two_barriers_kernel, 1, dim3(8, 4), 0, {}); });
  EXPECT_THAT(text, HasSubstr("is not reached by thread (0, 1, 0), which waits at __syncthreads"));
}

// --- warp collectives ----------------------------------------------------------------------------------------------

__global__ void missing_lane_kernel(int* y) {
  if (threadIdx.x % 32 == 7) return;
  y[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1, 1);
}

TEST_F(Harness, CollectiveWithALaneMissing) {
  for (const LaneOrder order : kLaneOrders) {
    set_lane_order(order);
    Array<int> y(64);
    const std::string text = complaint([&] { launch(missing_lane_kernel, 1, 64, 0, {}, y.get()); });
    EXPECT_THAT(text, HasSubstr("__shfl_down_sync at harness_test.cpp:"));
    EXPECT_THAT(text, HasSubstr("with mask 0xffffffff waits for lane 7, which has returned"));
  }
}

__global__ void lane_elsewhere_kernel(int* y) {
  if (threadIdx.x == 3) {
    __syncthreads();
  } else {
    y[threadIdx.x] = __any_sync(0xffffffffu, 1);
    __syncthreads();
  }
}

TEST_F(Harness, CollectiveWithALaneElsewhere) {
  Array<int> y(32);
  const std::string text = complaint([&] { launch(lane_elsewhere_kernel, 1, 32, 0, {}, y.get()); });
  EXPECT_THAT(text, HasSubstr("__any_sync"));
  EXPECT_THAT(text, HasSubstr("waits for lane 3, which waits at __syncthreads"));
}

__global__ void mask_kernel(int* y, unsigned mask, unsigned odd_mask) {
  y[threadIdx.x] = __shfl_sync(threadIdx.x % 2 ? odd_mask : mask, static_cast<int>(threadIdx.x), 0);
}

TEST_F(Harness, CollectiveWithAWrongMask) {
  Array<int> y(32);
  const auto with = [&](unsigned block, unsigned mask, unsigned odd_mask) {
    return complaint([&] { launch(mask_kernel, 1, block, 0, {}, y.get(), mask, odd_mask); });
  };
  EXPECT_THAT(with(32, 0x7fffffffu, 0x7fffffffu), HasSubstr("mask 0x7fffffff lacks the calling lane 31"));
  EXPECT_THAT(with(32, 0xffffffffu, 0xefffffffu), HasSubstr("waits for lane 1, which called it with mask 0xefffffff"));
  EXPECT_THAT(with(16, 0xffffffffu, 0xffffffffu), HasSubstr("waits for lane 16, which does not exist"));
  EXPECT_THAT(with(32, 0x55555555u, 0xaaaaaaaau), HasSubstr("reads lane 0, which is not in mask 0xaaaaaaaa"));
  EXPECT_EQ(with(32, 0xffffffffu, 0xffffffffu), "");
  EXPECT_EQ(y.values(), std::vector<int>(32, 0));
}

// --- memory --------------------------------------------------------------------------------------------------------

__global__ void write_kernel(float* y, int first, int last) {
  const int i = first + static_cast<int>(threadIdx.x);
  if (i < last) y[i] = 1.0f;
}

#ifdef __SANITIZE_ADDRESS__
#define EXPECT_BAD_WRITE(work, text) EXPECT_DEATH(work, "AddressSanitizer: (use-after-poison|heap-)")
#else
#define EXPECT_BAD_WRITE(work, text) EXPECT_THAT(complaint([&] { work; }), HasSubstr(text))
#endif

TEST_F(Harness, WriteOutsideAnAllocation) {
  Array<float> y(30);
  EXPECT_BAD_WRITE(launch(write_kernel, 1, 32, 0, {}, y.get(), 0, 31), "wrote behind an allocation of 120 bytes");
  EXPECT_BAD_WRITE(launch(write_kernel, 1, 32, 0, {}, y.get(), -1, 30), "wrote before an allocation of 120 bytes");
  EXPECT_EQ(complaint([&] { launch(write_kernel, 1, 32, 0, {}, y.get(), 0, 30); }), "");
}

// By an address that no longer looks like one, as one that lies in device memory.
__global__ void write_at_kernel(std::uintptr_t y, int count) {
  if (static_cast<int>(threadIdx.x) < count) reinterpret_cast<float*>(y)[threadIdx.x] = 1.0f;
}

TEST_F(Harness, WriteAfterFree) {
  Array<float> y(30);
  const auto gone = reinterpret_cast<std::uintptr_t>(y.free());
  EXPECT_BAD_WRITE(launch(write_at_kernel, 1, 32, 0, {}, gone, 30),
                   "wrote to an allocation of 120 bytes that had been");
}

TEST_F(Harness, BadFree) {
  float other = 0;
  heap().deallocate(&other, sizeof other);
  EXPECT_THAT(complaint([] { heap().verify("a test"); }), HasSubstr("not an allocation of this device"));
}

TEST_F(Harness, UnwrittenOutputIsNan) {
  Array<float> y(32);
  Array<double> z(1);
  Array<bf16> b(1);
  launch(write_kernel, 1, 32, 0, {}, y.get(), 0, 31);
  EXPECT_EQ(y[30], 1.0f);
  EXPECT_TRUE(std::isnan(y[31]));
  EXPECT_TRUE(std::isnan(z[0]));
  EXPECT_TRUE(std::isnan(static_cast<float>(b[0])));
}

__global__ void shared_kernel(float* y, int index) {
  RETORT_SHARED(float, tile, 8);
  RETORT_SHARED(float, other, 8);
  if (index < 8) y[threadIdx.x] = tile[index];
  other[index] = tile[0] = 1.0f;
}

TEST_F(Harness, SharedMemoryStartsAsNanInEveryBlock) {
  Array<float> y(1);
  launch(shared_kernel, 3, 1, 0, {}, y.get(), 0);
  EXPECT_TRUE(std::isnan(y[0]));
}

TEST_F(Harness, WriteOutsideASharedArray) {
  Array<float> y(1);
  EXPECT_BAD_WRITE(launch(shared_kernel, 1, 1, 0, {}, y.get(), 8), "wrote outside a shared array of 32 bytes");
}

__global__ void large_shared_kernel() {
  RETORT_SHARED(float, tile, 12 * 1024);
  tile[0] = kernels::dynamic_shared<float>()[0];
}

TEST_F(Harness, LimitsOfALaunch) {
  const auto text = complaint([] { launch(large_shared_kernel, 1, 1, 16, {}); });
  EXPECT_THAT(text, HasSubstr("of shared memory; a launch has 49152"));
  EXPECT_THAT(complaint([] { launch(two_barriers_kernel, 1, 1056, 0, {}); }), HasSubstr("beyond what a device allows"));
  EXPECT_THAT(complaint([] { launch(two_barriers_kernel, std::int64_t{1} << 31, 32, 0, {}); }),
              HasSubstr("more than 2147483647 blocks"));
}

// --- and what is right stays right ---------------------------------------------------------------------------------

__global__ void block_sum_kernel(const float* x, float* y) {
  RETORT_SHARED(float, partial, 8);
  float* const turned = kernels::dynamic_shared<float>();
  turned[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  float sum = turned[blockDim.x - 1 - threadIdx.x];
  for (unsigned delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 8) {
    sum = partial[threadIdx.x];
    for (int bits = 4; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffu, sum, bits, 8);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
  }
}

TEST_F(Harness, BlockReductionIsRightInEveryOrder) {
  constexpr int kBlocks = 5, kThreads = 256;
  Array<float> x(kBlocks * kThreads);
  for (int i = 0; i < kBlocks * kThreads; ++i) x[i] = static_cast<float>(i % 97);
  for (const LaneOrder order : kLaneOrders) {
    set_lane_order(order);
    Array<float> y(kBlocks);
    launch(block_sum_kernel, kBlocks, kThreads, kThreads * sizeof(float), {}, x.get(), y.get());
    for (int b = 0; b < kBlocks; ++b) {
      EXPECT_EQ(y[b], std::accumulate(&x[b * kThreads], &x[b * kThreads] + kThreads, 0.0f)) << name_of(order);
    }
  }
}

__global__ void shuffle_kernel(int* y) {
  const int lane = static_cast<int>(threadIdx.x);
  int* const row = y + lane * 8;
  row[0] = __shfl_sync(0xffffffffu, lane, 5);
  row[1] = __shfl_sync(0xffffffffu, lane, 9, 8);
  row[2] = __shfl_down_sync(0xffffffffu, lane, 3);
  row[3] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
  row[4] = __shfl_up_sync(0xffffffffu, lane, 3);
  row[5] = __shfl_xor_sync(0xffffffffu, lane, 6);
  row[6] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
  row[7] = __all_sync(0xffffffffu, lane < 32) * 10 + __any_sync(0xffffffffu, lane == 32);
}

TEST_F(Harness, CollectivesAreRightInEveryOrder) {
  for (const LaneOrder order : kLaneOrders) {
    set_lane_order(order, 7);
    Array<int> y(32 * 8);
    launch(shuffle_kernel, 1, 32, 0, {}, y.get());
    for (int lane = 0; lane < 32; ++lane) {
      const int* row = y.get() + lane * 8;
      EXPECT_EQ(row[0], 5);
      EXPECT_EQ(row[1], lane / 8 * 8 + 1);
      EXPECT_EQ(row[2], lane + 3 < 32 ? lane + 3 : lane);
      EXPECT_EQ(row[3], lane % 8 + 3 < 8 ? lane + 3 : lane);
      EXPECT_EQ(row[4], lane >= 3 ? lane - 3 : lane);
      EXPECT_EQ(row[5], lane ^ 6);
      EXPECT_EQ(row[6], 0x49249249);
      EXPECT_EQ(row[7], 10);
    }
  }
}

__global__ void order_kernel(int* y, int* next) {
  y[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

TEST_F(Harness, OrdersAreWhatTheySay) {
  const auto run_in = [](LaneOrder order, std::uint64_t seed) {
    set_lane_order(order, seed);
    Array<int> y(64), next(1);
    next[0] = 0;
    launch(order_kernel, 2, 32, 0, {}, y.get(), next.get());
    return y.values();
  };
  std::vector<int> sorted(64);
  std::iota(sorted.begin(), sorted.end(), 0);
  EXPECT_EQ(run_in(LaneOrder::forward, 1), sorted);
  EXPECT_EQ(run_in(LaneOrder::reversed, 1), std::vector<int>(sorted.rbegin(), sorted.rend()));
  const std::vector<int> shuffled = run_in(LaneOrder::shuffled, 1);
  EXPECT_THAT(shuffled, testing::UnorderedElementsAreArray(sorted));
  EXPECT_NE(shuffled, sorted);
  EXPECT_EQ(run_in(LaneOrder::shuffled, 1), shuffled);
  EXPECT_NE(run_in(LaneOrder::shuffled, 2), shuffled);
}

}  // namespace
}  // namespace retort::simt
