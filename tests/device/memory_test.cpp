// Memory in stream order.
#include "tests/device/device_test.h"

namespace retort::standin {
namespace {

class DeviceMemoryTest : public DeviceTest {
 protected:
  std::uint64_t pool(cudaMemPoolAttr name) const {
    std::uint64_t value = 0;
    ok(cudaMemPoolGetAttribute(pool_, name, &value));
    return value;
  }
};

TEST_F(DeviceMemoryTest, HoldsNaNUntilItIsWrittenAndWhenItIsFreed) {
  float* const first = allocate(a_);
  EXPECT_TRUE(std::isnan(read(first, a_)));
  set(first, 3, a_);
  free(first, a_);
  float* const second = allocate(a_);
  EXPECT_EQ(second, first);  // the block freed last
  EXPECT_TRUE(std::isnan(read(second, a_)));
  free(second, a_);
}

TEST_F(DeviceMemoryTest, IsReusedOnAnotherStreamOnlyWhereThatWaits) {
  float* const first = allocate(a_);
  free(first, a_);
  float* const other = allocate(b_);
  EXPECT_NE(other, first);
  wait(b_, a_);
  float* const same = allocate(b_);
  EXPECT_EQ(same, first);
  free(same, b_);
  free(other, b_);
  // What the host has waited for is ordered before all that it queues.
  float* const third = allocate(b_);
  free(third, b_);
  ok(cudaStreamSynchronize(b_));
  float* const again = allocate(a_);
  EXPECT_EQ(again, third);
  free(again, a_);
}

TEST_F(DeviceMemoryTest, MayBeUsedWhereTheAllocationIsWaitedFor) {
  float* const data = allocate(a_);
  EXPECT_FINDING(set(data, 1, b_),
                 "device_test.h.*on stream.*uses an allocation of 256 bytes.*without waiting for the "
                 "allocation");
  wait(b_, a_);
  set(data, 1, b_);
  EXPECT_EQ(read(data, b_), 1);
  free(data, b_);
}

TEST_F(DeviceMemoryTest, MustNotBeFreedBeforeAUseOnAnotherStream) {
  float* const data = allocate(a_);
  wait(b_, a_);
  set(data, 1, b_);
  EXPECT_FINDING(free(data, a_), "frees an allocation of 256 bytes.*without waiting for its use by the kernel");
  wait(a_, b_);
  free(data, a_);
}

TEST_F(DeviceMemoryTest, MustNotBeUsedOnceFreed) {
  float* const data = allocate(a_);
  free(data, a_);
  EXPECT_FINDING(set(data, 1, a_), "memory that is not allocated");
  EXPECT_FINDING(set(data, 1, b_), "memory that is not allocated");
  EXPECT_FINDING(free(data, a_), "freed before");
}

TEST_F(DeviceMemoryTest, IsGuardedAtBothEnds) {
  float* const data = allocate(a_, 5);
  EXPECT_FINDING(
      {
        kernels::launch(
            +[](float* at) { at[5] = 0; }, 1, 1, 0, {a_}, data);
        cudaStreamSynchronize(a_);
      },
      "something wrote behind an allocation of 20 bytes");
  EXPECT_FINDING(
      {
        kernels::launch(
            +[](float* at) { at[-1] = 0; }, 1, 1, 0, {a_}, data);
        cudaStreamSynchronize(a_);
      },
      "something wrote before an allocation of 20 bytes");
  EXPECT_FINDING(cudaMemsetAsync(data, 0, 24, a_), "uses 24 bytes from byte 0 of an allocation of 20 bytes");
  EXPECT_FINDING(cudaMemsetAsync(data + 2, 0, 16, a_), "uses 16 bytes from byte 8");
  ok(cudaMemsetAsync(data + 2, 0, 12, a_));
  free(data, a_);
}

TEST_F(DeviceMemoryTest, IsToldFromTheHosts) {
  float host = 0;
  EXPECT_FINDING(set(&host, 1, a_), "points into host memory");
  struct Many {
    char first;
    float* data[3];
  };
  float* const data = allocate(a_);
  free(allocate(a_), a_);
  const auto kernel = +[](Many many) { *many.data[2] = 1; };
  kernels::launch(kernel, 1, 1, 0, {a_}, Many{'a', {nullptr, nullptr, data}});
  EXPECT_FINDING(kernels::launch(kernel, 1, 1, 0, {b_}, Many{'a', {nullptr, nullptr, data}}), "without waiting");
  free(data, a_);
}

TEST_F(DeviceMemoryTest, RunsOutAtTheSizeOneAsksFor) {
  set_memory(1 << 20);
  void* data = nullptr;
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, (1 << 20) + 1, pool_, a_), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  float* const half = allocate(a_, 1 << 17);
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, (1 << 19) + 1, pool_, a_), cudaErrorMemoryAllocation);
  free(half, a_);
  // What was freed stays the pool's; it goes back when the free has executed and the pool is trimmed.
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, 1 << 20, pool_, a_), cudaErrorMemoryAllocation);
  ok(cudaMemPoolTrimTo(pool_, 0));
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, 1 << 20, pool_, a_), cudaErrorMemoryAllocation);
  ok(cudaDeviceSynchronize());
  ok(cudaMemPoolTrimTo(pool_, 0));
  ok(cudaMallocFromPoolAsync(&data, 1 << 20, pool_, a_));
  ok(cudaFreeAsync(data, a_));
  ok(cudaDeviceSynchronize());
  set_memory(std::size_t{80} << 30);
}

TEST_F(DeviceMemoryTest, IsCounted) {
  float* const data = allocate(a_, 256);
  EXPECT_EQ(pool(cudaMemPoolAttrUsedMemCurrent), 1024u);
  free(data, a_);
  EXPECT_EQ(pool(cudaMemPoolAttrUsedMemCurrent), 0u);
  EXPECT_EQ(pool(cudaMemPoolAttrUsedMemHigh), 1024u);
  EXPECT_EQ(pool(cudaMemPoolAttrReservedMemCurrent), 1024u);
  std::uint64_t value = 0;
  ok(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &value));
  EXPECT_EQ(pool(cudaMemPoolAttrUsedMemHigh), 0u);
  // Above the threshold, a synchronisation gives it back.
  ok(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &value));
  ok(cudaStreamSynchronize(a_));
  EXPECT_EQ(pool(cudaMemPoolAttrReservedMemCurrent), 0u);
}

}  // namespace
}  // namespace retort::standin
