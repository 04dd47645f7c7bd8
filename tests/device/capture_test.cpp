// The rules of stream capture, and replays.
#include <thread>

#include "tests/device/device_test.h"

namespace retort::standin {
namespace {

class DeviceCaptureTest : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    x_ = allocate(a_);
    set(x_, 1, a_);
    wait(b_, a_);
  }
  void TearDown() override {
    ok(cudaDeviceSynchronize());
    free(x_, a_);
    DeviceTest::TearDown();
  }
  void replay(cudaGraphExec_t exec) const { ok(cudaGraphLaunch(exec, a_)); }

  float* x_ = nullptr;
};

TEST_F(DeviceCaptureTest, RecordsInsteadOfRunning) {
  const cudaGraphExec_t exec = record([&] { add(x_, 1, a_); });
  EXPECT_EQ(read(x_, a_), 1);
  for (int i = 0; i < 3; ++i) replay(exec);
  EXPECT_EQ(read(x_, a_), 4);
  EXPECT_EQ(last_graph().kernels, 1);
  EXPECT_EQ(last_graph().kernel_bytes, 256);
  ok(cudaGraphExecDestroy(exec));
}

TEST_F(DeviceCaptureTest, WhatForksMustJoin) {
  const auto fork = [&] {
    wait(b_, a_);
    add(x_, 1, b_);
  };
  EXPECT_EQ(end_of_recording([&] {
              fork();
              wait(a_, b_);
            }),
            cudaSuccess);
  EXPECT_EQ(end_of_recording(fork), cudaErrorStreamCaptureUnjoined);
  // A free after the last wait is work too.
  EXPECT_EQ(end_of_recording([&] {
              wait(b_, a_);
              float* const scratch = allocate(b_);
              wait(a_, b_);
              free(scratch, b_);
            }),
            cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(end_of_recording([&] { wait(b_, a_); }), cudaSuccess);  // no work
  cudaGetLastError();
  add(x_, 1, b_);  // as ordinary streams again
  ok(cudaStreamSynchronize(b_));
  EXPECT_EQ(read(x_, a_), 2);
}

TEST_F(DeviceCaptureTest, IsIsolated) {
  EXPECT_EQ(end_of_recording([&] {
              ok(cudaEventRecord(event_, b_));  // which is not recorded
              EXPECT_EQ(cudaStreamWaitEvent(a_, event_, 0), cudaErrorStreamCaptureIsolation);
              EXPECT_EQ(cudaMemsetAsync(x_, 0, 4, a_), cudaErrorStreamCaptureInvalidated);
            }),
            cudaErrorStreamCaptureInvalidated);
  // An event of a recording that has ended stands for nothing.
  EXPECT_EQ(end_of_recording([&] { ok(cudaEventRecord(event_, a_)); }), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(b_, event_, 0), cudaErrorInvalidValue);
  EXPECT_EQ(cudaEventSynchronize(event_), cudaErrorCapturedEvent);
}

TEST_F(DeviceCaptureTest, TwoRecordingsDoNotMerge) {
  cudaGraph_t graph = nullptr;
  ok(cudaStreamBeginCapture(b_, cudaStreamCaptureModeThreadLocal));
  EXPECT_EQ(end_of_recording([&] {
              ok(cudaEventRecord(event_, a_));
              EXPECT_EQ(cudaStreamWaitEvent(b_, event_, 0), cudaErrorStreamCaptureMerge);
            }),
            cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(b_, &graph), cudaErrorStreamCaptureInvalidated);
}

TEST_F(DeviceCaptureTest, NobodyWaitsForWhatIsBeingRecorded) {
  for (const bool device : {false, true}) {
    EXPECT_EQ(end_of_recording([&] {
                EXPECT_EQ(device ? cudaDeviceSynchronize() : cudaStreamSynchronize(a_),
                          cudaErrorStreamCaptureUnsupported);
              }),
              cudaErrorStreamCaptureInvalidated);
  }
  EXPECT_EQ(end_of_recording([&] {
              ok(cudaEventRecord(event_, a_));
              EXPECT_EQ(cudaEventSynchronize(event_), cudaErrorCapturedEvent);
            }),
            cudaErrorStreamCaptureInvalidated);
}

TEST_F(DeviceCaptureTest, UnsafeCallsGoByTheThreadsMode) {
  const auto pinned = [] {
    void* host = nullptr;
    const cudaError_t status = cudaHostAlloc(&host, 16, cudaHostAllocDefault);
    if (status == cudaSuccess) ok(cudaFreeHost(host));
    return status;
  };
  EXPECT_EQ(end_of_recording([&] { EXPECT_EQ(pinned(), cudaErrorStreamCaptureUnsupported); }),
            cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(end_of_recording([&] {
              cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
              ok(cudaThreadExchangeStreamCaptureMode(&mode));
              EXPECT_EQ(mode, cudaStreamCaptureModeGlobal);
              ok(pinned());
              ok(cudaThreadExchangeStreamCaptureMode(&mode));
            }),
            cudaSuccess);
  // Another thread goes on beside a recording that is this thread's own, and may not beside a global one.
  EXPECT_EQ(end_of_recording([&] { std::thread([&] { ok(pinned()); }).join(); }), cudaSuccess);
  ok(cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal));
  std::thread([&] { EXPECT_EQ(pinned(), cudaErrorStreamCaptureUnsupported); }).join();
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureInvalidated);
}

TEST_F(DeviceCaptureTest, EndsWhereAndInTheThreadInWhichItBegan) {
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorIllegalState);
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(
      end_of_recording([&] {
        std::thread([&] { EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureWrongThread); }).join();
      }),
      cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(end_of_recording([&] {
              wait(b_, a_);
              EXPECT_EQ(cudaStreamEndCapture(b_, &graph), cudaErrorStreamCaptureUnmatched);
            }),
            cudaErrorStreamCaptureInvalidated);
}

TEST_F(DeviceCaptureTest, TheNullStreamIsClosedWhileABlockingStreamIsRecorded) {
  const auto use_null_stream = [&] { return cudaMemsetAsync(x_, 0, 4, nullptr); };
  ok(cudaDeviceSynchronize());
  EXPECT_EQ(end_of_recording([&] { ok(use_null_stream()); }), cudaSuccess);
  ok(cudaDeviceSynchronize());
  cudaStream_t blocking = nullptr;
  ok(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault));
  ok(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
  EXPECT_EQ(use_null_stream(), cudaErrorStreamCaptureImplicit);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
  ok(cudaStreamDestroy(blocking));
}

TEST_F(DeviceCaptureTest, MemoryOfAGraphLivesWithinAReplay) {
  float *scratch = nullptr, *second = nullptr;
  const cudaGraphExec_t exec = record([&] {
    scratch = allocate(a_);
    EXPECT_FINDING(free(scratch, b_), "is being recorded on another stream");
    set(scratch, 4, a_);
    copy(scratch, x_, a_);
    free(scratch, a_);
    EXPECT_FINDING(set(scratch, 4, a_), "memory that is not allocated");
    second = allocate(a_);
    copy(second, x_ + 1, a_);  // NaN: the block was freed between
    free(second, a_);
  });
  EXPECT_EQ(second, scratch);
  EXPECT_EQ(last_graph().allocations, 2);
  EXPECT_EQ(last_graph().frees, 2);
  for (int i = 0; i < 2; ++i) {
    replay(exec);
    EXPECT_EQ(read(x_, a_), 4);
    EXPECT_TRUE(std::isnan(read(x_ + 1, a_)));
  }
  EXPECT_FINDING(set(scratch, 1, a_), "memory that is not allocated");
  ok(cudaGraphExecDestroy(exec));
}

TEST_F(DeviceCaptureTest, WithinARecordingMemoryIsOrderedToo) {
  EXPECT_EQ(end_of_recording([&] {
              float* const scratch = allocate(a_);
              wait(b_, a_);
              set(scratch, 1, b_);
              EXPECT_FINDING(free(scratch, a_), "without waiting for its use");
              EXPECT_FINDING(set(scratch, 1, a_), "neither waits for the other");
              wait(a_, b_);
              free(scratch, a_);
              float* const other = allocate(b_);
              EXPECT_NE(other, scratch);  // b has not waited for the free
              wait(a_, b_);
              free(other, a_);
            }),
            cudaSuccess);
}

TEST_F(DeviceCaptureTest, WhatLivedBeforeIsNotFreedInside) {
  float* const early = allocate(a_);
  EXPECT_EQ(end_of_recording([&] { EXPECT_EQ(cudaFreeAsync(early, a_), cudaErrorInvalidValue); }),
            cudaErrorStreamCaptureInvalidated);
  const cudaGraphExec_t exec = record([&] { set(early, 1, a_); });
  replay(exec);
  free(early, a_);
  EXPECT_FINDING(replay(exec), "memory that is not allocated");
  ok(cudaGraphExecDestroy(exec));
}

TEST_F(DeviceCaptureTest, AReplayWaitsForWhatTheStreamDidAndForTheOneBefore) {
  const cudaGraphExec_t exec = record([&] {
    wait(b_, a_);
    add(x_, 1, b_);
    wait(a_, b_);
  });
  for (const char* order : {"late", "others_first", "early", "seed:5"}) {
    set_order(order);
    set(x_, 10, a_);
    replay(exec);
    wait(b_, a_);
    ok(cudaGraphLaunch(exec, b_));
    EXPECT_FINDING(add(x_, 1, a_), "neither waits for the other");
    EXPECT_EQ(read(x_, b_), 12) << order;
  }
  ok(cudaGraphExecDestroy(exec));
}

// Its two branches in both orders, as a device may.
TEST_F(DeviceCaptureTest, AReplayRunsInAnotherOrderThanItWasRecorded) {
  void* memory = nullptr;
  ok(cudaHostAlloc(&memory, 3 * sizeof(int), cudaHostAllocDefault));
  auto* const log = static_cast<int*>(memory);
  // Kernels that write where no analysis sees it; on a device a counter that is mapped would tell the same.
  static int* g_log = nullptr;
  g_log = log;
  const auto branch = +[](int number) { g_log[++g_log[0]] = number; };
  const cudaGraphExec_t exec = record([&] {
    wait(b_, a_);
    kernels::launch(branch, 1, 1, 0, {a_}, 1);
    kernels::launch(branch, 1, 1, 0, {b_}, 2);
    wait(a_, b_);
  });
  const auto first_in = [&](const char* order) {
    set_order(order);
    std::fill_n(log, 3, 0);
    replay(exec);
    ok(cudaStreamSynchronize(a_));
    EXPECT_EQ(log[0], 2);
    return log[1];
  };
  EXPECT_EQ(first_in("late"), 1);
  EXPECT_EQ(first_in("others_first"), 2);
  EXPECT_EQ(first_in("early"), 1);
  ok(cudaGraphExecDestroy(exec));
  ok(cudaFreeHost(memory));
}

TEST_F(DeviceCaptureTest, AGraphWithMemoryHasOneExecutableAndKeepsOrFreesWhatIsLeft) {
  for (const bool automatic : {true, false}) {
    ok(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal));
    float* const kept = allocate(a_);
    set(kept, 6, a_);
    cudaGraph_t graph = nullptr;
    ok(cudaStreamEndCapture(a_, &graph));
    cudaGraphExec_t exec = nullptr, other = nullptr;
    ok(cudaGraphInstantiateWithFlags(&exec, graph, automatic ? cudaGraphInstantiateFlagAutoFreeOnLaunch : 0));
    EXPECT_EQ(cudaGraphInstantiateWithFlags(&other, graph, 0), cudaErrorNotSupported);
    ok(cudaGraphDestroy(graph));
    replay(exec);
    EXPECT_EQ(read(kept, a_), 6);
    EXPECT_EQ(cudaGraphLaunch(exec, a_), automatic ? cudaSuccess : cudaErrorInvalidValue);
    free(kept, a_);  // the program may, too
    replay(exec);
    free(kept, a_);
    ok(cudaGraphExecDestroy(exec));
  }
}

TEST_F(DeviceCaptureTest, GraphsMemoryIsCountedAndTrimmed) {
  const auto attribute = [](cudaGraphMemAttributeType name) {
    std::uint64_t value = 0;
    ok(cudaDeviceGetGraphMemAttribute(0, name, &value));
    return value;
  };
  ok(cudaDeviceGraphMemTrim(0));
  const cudaGraphExec_t exec = record([&] { free(allocate(a_, 256), a_); });
  EXPECT_EQ(attribute(cudaGraphMemAttrUsedMemCurrent), 0u);
  ok(cudaGraphUpload(exec, a_));
  EXPECT_EQ(attribute(cudaGraphMemAttrUsedMemCurrent), 1024u);
  ok(cudaGraphExecDestroy(exec));
  EXPECT_EQ(attribute(cudaGraphMemAttrUsedMemCurrent), 0u);
  EXPECT_EQ(attribute(cudaGraphMemAttrReservedMemCurrent), 1024u);
  ok(cudaDeviceGraphMemTrim(0));
  EXPECT_EQ(attribute(cudaGraphMemAttrReservedMemCurrent), 0u);

  const cudaGraphExec_t large = record([&] { free(allocate(a_, 1 << 20), a_); });
  set_memory(1 << 22);
  EXPECT_EQ(cudaGraphLaunch(large, a_), cudaErrorMemoryAllocation);
  set_memory(std::size_t{80} << 30);
  ok(cudaGraphExecDestroy(large));
}

}  // namespace
}  // namespace retort::standin
