// What is ordered and what is not: streams, events, the null stream, the host.
#include <algorithm>

#include "tests/device/device_test.h"

namespace retort::standin {
namespace {

class DeviceOrderTest : public DeviceTest {};

TEST_F(DeviceOrderTest, RunsNothingBeforeItIsNeeded) {
  float *const x = allocate(a_), *const y = allocate(b_);
  set(x, 1, a_);
  set(y, 2, b_);
  const std::size_t before = queued();
  EXPECT_EQ(before, 4u);
  EXPECT_EQ(read(x, a_), 1);
  EXPECT_EQ(queued(), 2u);  // those of b
  set_order("others_first");
  set(x, 3, a_);
  EXPECT_EQ(read(x, a_), 3);
  EXPECT_EQ(queued(), 0u);
  set_order("early");
  set(x, 4, a_);
  EXPECT_EQ(queued(), 0u);
  free(x, a_);
  free(y, b_);
}

TEST_F(DeviceOrderTest, FindsARaceWhateverTheOrder) {
  for (const char* order : {"late", "others_first", "early", "seed:3"}) {
    set_order(order);
    float *const x = allocate(a_), *const y = allocate(b_);
    wait(b_, a_);
    set(x, 1, a_);
    EXPECT_FINDING(copy(x, y, b_), "reads an allocation of 256 bytes.*writes, and neither waits for the other");
    wait(b_, a_);
    copy(x, y, b_);
    EXPECT_FINDING(set(x, 2, a_), "writes an allocation of 256 bytes.*reads, and neither waits for the other");
    wait(a_, b_);
    set(x, 2, a_);
    EXPECT_EQ(read(y, b_), 1) << order;
    EXPECT_EQ(read(x, a_), 2) << order;
    // Two reads need no order, nor do writes to different places.
    copy(x, y, b_);
    copy(x, x + 8, a_);
    wait(b_, a_);
    free(x, b_);
    free(y, b_);
    ok(cudaDeviceSynchronize());
  }
}

TEST_F(DeviceOrderTest, AnEventStandsForWhatWasQueuedWhenItWasRecorded) {
  float* const x = allocate(a_);
  wait(b_, a_);
  ok(cudaEventRecord(event_, a_));
  set(x, 1, a_);
  ok(cudaStreamWaitEvent(b_, event_, 0));
  EXPECT_FINDING(set(x, 2, b_), "neither waits for the other");
  ok(cudaEventRecord(event_, a_));  // anew: what waited before does not wait for this
  EXPECT_FINDING(set(x, 2, b_), "neither waits for the other");
  ok(cudaStreamWaitEvent(b_, event_, 0));
  set(x, 2, b_);
  EXPECT_EQ(read(x, b_), 2);
  free(x, b_);
}

TEST_F(DeviceOrderTest, TheHostOrdersWhatItHasWaitedFor) {
  float* const x = allocate(a_);
  set(x, 1, a_);
  ok(cudaEventRecord(event_, a_));
  set(x + 1, 5, a_);
  ok(cudaEventSynchronize(event_));
  add(x, 1, b_);
  EXPECT_FINDING(add(x + 1, 1, b_), "neither waits for the other");
  EXPECT_FINDING(free(x, b_), "without waiting for its use");
  ok(cudaDeviceSynchronize());
  add(x + 1, 1, b_);
  EXPECT_EQ(read(x, b_), 2);
  EXPECT_EQ(read(x + 1, b_), 6);
  free(x, b_);
}

TEST_F(DeviceOrderTest, TheNullStreamWaitsForBlockingStreamsOnly) {
  cudaStream_t blocking = nullptr;
  ok(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault));
  float* const x = allocate(nullptr);
  set(x, 1, blocking);
  add(x, 1, nullptr);
  add(x, 1, blocking);
  EXPECT_FINDING(set(x, 1, a_), "without waiting for the allocation");
  EXPECT_EQ(read(x, nullptr), 3);
  set(x, 7, a_);
  EXPECT_FINDING(add(x, 1, nullptr), "neither waits for the other");
  ok(cudaStreamSynchronize(a_));
  free(x, nullptr);
  ok(cudaStreamDestroy(blocking));
}

TEST_F(DeviceOrderTest, AStreamThatIsDestroyedRunsToItsEndButIsUsedNoMore) {
  cudaStream_t stream = nullptr;
  ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  float* const x = allocate(stream);
  set(x, 1, stream);
  wait(a_, stream);
  ok(cudaStreamDestroy(stream));
  EXPECT_FINDING(free(x, stream), "does not exist, or was destroyed");
  EXPECT_EQ(read(x, a_), 1);
  free(x, a_);
}

TEST_F(DeviceOrderTest, ArgumentsAreCopiedAtTheLaunch) {
  float* const x = allocate(a_);
  float value = 1;
  set(x, value, a_);
  value = 2;
  EXPECT_EQ(read(x, a_), 1);
  free(x, a_);
}

// In the order "late" a copy from pinned memory sees what the host writes after the call, in "early" only what it wrote
// before; pageable memory is read at the call.
TEST_F(DeviceOrderTest, PinnedMemoryIsReadWhenTheCopyRuns) {
  void* memory = nullptr;
  ok(cudaHostAlloc(&memory, sizeof(float), cudaHostAllocDefault));
  auto* const pinned = static_cast<float*>(memory);
  float pageable = 0;
  float* const x = allocate(a_);
  const auto sent = [&](float* host) {
    *host = 1;
    ok(cudaMemcpyAsync(x, host, sizeof *host, cudaMemcpyHostToDevice, a_));
    *host = 2;
    return read(x, a_);
  };
  EXPECT_EQ(sent(pinned), 2);
  EXPECT_EQ(sent(&pageable), 1);
  set_order("early");
  EXPECT_EQ(sent(pinned), 1);
  set_order("late");
  // And written when it runs.
  *pinned = 9;
  ok(cudaMemcpyAsync(pinned, x, sizeof *pinned, cudaMemcpyDeviceToHost, a_));
  EXPECT_EQ(*pinned, 9);
  ok(cudaStreamSynchronize(a_));
  EXPECT_EQ(*pinned, 1);
  pageable = 0;
  ok(cudaMemcpyAsync(&pageable, x, sizeof pageable, cudaMemcpyDeviceToHost, a_));
  EXPECT_EQ(pageable, 1);
  EXPECT_FINDING(cudaMemcpyAsync(pinned, x, 8, cudaMemcpyDeviceToHost, a_), "8 bytes from byte 0 of 4 pinned ones");
  ok(cudaFreeHost(memory));
  free(x, a_);
}

TEST_F(DeviceOrderTest, ACopysDirectionIsTheTruth) {
  float *const x = allocate(a_), *const y = allocate(a_);
  float host = 0;
  ok(cudaMemsetAsync(x, 0, 4, a_));
  ok(cudaMemcpyAsync(y, x, 4, cudaMemcpyDeviceToDevice, a_));
  EXPECT_FINDING(cudaMemcpyAsync(y, x, 4, cudaMemcpyHostToDevice, a_), "from device memory to device memory");
  EXPECT_FINDING(cudaMemcpyAsync(&host, x, 4, cudaMemcpyDeviceToDevice, a_), "from device memory to host memory");
  free(x, a_);
  free(y, a_);
}

TEST_F(DeviceOrderTest, TimesAreOfEventsThatHaveThem) {
  cudaEvent_t start = nullptr, stop = nullptr;
  ok(cudaEventCreate(&start));
  ok(cudaEventCreate(&stop));
  float* const x = allocate(a_);
  ok(cudaEventRecord(start, a_));
  set(x, 1, a_);
  ok(cudaEventRecord(stop, a_));
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, stop), cudaErrorNotReady);
  ok(cudaEventSynchronize(stop));
  ok(cudaEventElapsedTime(&milliseconds, start, stop));
  EXPECT_GT(milliseconds, 0);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event_, stop), cudaErrorInvalidResourceHandle);
  ok(cudaEventDestroy(start));
  ok(cudaEventDestroy(stop));
  free(x, a_);
}

}  // namespace
}  // namespace retort::standin
