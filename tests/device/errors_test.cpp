// Calls that fail because the tests want it, and what CUDA refuses.
#include "tests/device/device_test.h"

namespace retort::standin {
namespace {

class DeviceErrorsTest : public DeviceTest {};

TEST_F(DeviceErrorsTest, TheNthCallFailsOnce) {
  void* data = nullptr;
  fail_calls("cudaMallocFromPoolAsync", 2);
  float* const first = allocate(a_);
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, 4, pool_, a_), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  free(allocate(a_), a_);
  free(first, a_);
}

TEST_F(DeviceErrorsTest, AllCountsEveryFunction) {
  fail_calls("all", 3, 2);
  float* const data = allocate(a_);
  ok(cudaMemsetAsync(data, 0, 4, a_));
  EXPECT_EQ(cudaMemsetAsync(data, 0, 4, a_), cudaErrorUnknown);
  EXPECT_EQ(cudaEventRecord(event_, a_), cudaErrorUnknown);
  ok(cudaMemsetAsync(data, 0, 4, a_));
  free(data, a_);
}

TEST_F(DeviceErrorsTest, AFailedFreeHasFreed) {
  const std::size_t before = left().allocations;
  float* const data = allocate(a_);
  EXPECT_EQ(left().allocations, before + 1);
  fail_calls("cudaFreeAsync", 1);
  EXPECT_EQ(cudaFreeAsync(data, a_), cudaErrorUnknown);
  EXPECT_EQ(left().allocations, before);
}

TEST_F(DeviceErrorsTest, ALostDeviceStaysLost) {
  fail_calls("cudaStreamSynchronize", 1);
  EXPECT_EQ(cudaStreamSynchronize(a_), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  void* data = nullptr;
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, 4, pool_, a_), cudaErrorLaunchFailure);
  fail_no_calls();
  free(allocate(a_), a_);
}

TEST_F(DeviceErrorsTest, EveryCallIsCounted) {
  const std::int64_t before = calls()["cudaEventRecord"];
  ok(cudaEventRecord(event_, a_));
  EXPECT_EQ(calls()["cudaEventRecord"], before + 1);
}

TEST_F(DeviceErrorsTest, ALaunchBeyondTheLimitsIsRefused) {
  float* const data = allocate(a_);
  float value = 1;
  void* arguments[] = {const_cast<float**>(&data), &value};
  const auto launch = [&](dim3 grid, dim3 block, std::size_t shared) {
    return cudaLaunchKernel(reinterpret_cast<const void*>(&set_kernel), grid, block, arguments, shared, a_);
  };
  set(data, 0, a_);  // introduces it
  EXPECT_EQ(launch(1, 1025, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch({1, 65536}, 1, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(1, 1, 48 * 1024 + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaLaunchKernel(&value, 1, 1, arguments, 0, a_), cudaErrorInvalidDeviceFunction);
  ok(launch(1, 1, 0));
  EXPECT_EQ(read(data, a_), 1);
  free(data, a_);
}

TEST_F(DeviceErrorsTest, EveryErrorHasAName) {
  EXPECT_STREQ(cudaGetErrorName(cudaErrorStreamCaptureUnjoined), "cudaErrorStreamCaptureUnjoined");
  EXPECT_STREQ(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

}  // namespace
}  // namespace retort::standin
