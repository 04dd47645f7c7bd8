// Tests of the stand-in device itself, through CUDA's calls. Each starts in the order "late" and ends with nothing left;
// a finding is looked for in a child process (EXPECT_FINDING).
#pragma once

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"
#include "tests/device/standin.h"

namespace retort::standin {

#define EXPECT_FINDING(statement, text) EXPECT_EXIT(statement, testing::ExitedWithCode(kFindingExit), text)

inline void ok(cudaError_t status) {
  EXPECT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
}

class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    set_order("late");
    before_ = left();
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    ok(cudaMemPoolCreate(&pool_, &properties));
    std::uint64_t all = std::numeric_limits<std::uint64_t>::max();
    ok(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &all));
    for (cudaStream_t* stream : {&a_, &b_}) ok(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    ok(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
  }
  void TearDown() override {
    fail_no_calls();
    cudaGetLastError();
    ok(cudaDeviceSynchronize());
    ok(cudaEventDestroy(event_));
    for (cudaStream_t stream : {a_, b_}) ok(cudaStreamDestroy(stream));
    ok(cudaMemPoolDestroy(pool_));
    EXPECT_EQ(left(), before_);
  }

  // Of `count` floats.
  float* allocate(cudaStream_t stream, std::size_t count = 64) {
    void* data = nullptr;
    ok(cudaMallocFromPoolAsync(&data, count * sizeof(float), pool_, stream));
    return static_cast<float*>(data);
  }
  static void free(float* data, cudaStream_t stream) { ok(cudaFreeAsync(data, stream)); }

  static __global__ void set_kernel(float* data, float value) { *data = value; }
  static __global__ void copy_kernel(const float* from, float* to) { *to = *from; }
  static __global__ void add_kernel(float* data, float value) { *data += value; }
  static void set(float* data, float value, cudaStream_t stream) {
    kernels::launch(set_kernel, 1, 1, 0, {stream}, data, value);
  }
  static void copy(const float* from, float* to, cudaStream_t stream) {
    kernels::launch(copy_kernel, 1, 1, 0, {stream}, from, to);
  }
  static void add(float* data, float value, cudaStream_t stream) {
    kernels::launch(add_kernel, 1, 1, 0, {stream}, data, value);
  }
  // The first float; waits for the stream.
  static float read(const float* data, cudaStream_t stream) {
    float value = -1;
    ok(cudaMemcpyAsync(&value, data, sizeof value, cudaMemcpyDeviceToHost, stream));
    ok(cudaStreamSynchronize(stream));
    return value;
  }

  void wait(cudaStream_t waiting, cudaStream_t on) {
    ok(cudaEventRecord(event_, on));
    ok(cudaStreamWaitEvent(waiting, event_, 0));
  }

  // A graph of what `work` queues on a_ and on streams that join it.
  cudaGraphExec_t record(const std::function<void()>& work,
                         unsigned long long flags = cudaGraphInstantiateFlagAutoFreeOnLaunch) {
    ok(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal));
    work();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    ok(cudaStreamEndCapture(a_, &graph));
    ok(cudaGraphInstantiateWithFlags(&exec, graph, flags));
    ok(cudaGraphDestroy(graph));
    return exec;
  }
  // What cudaStreamEndCapture says after `work`.
  cudaError_t end_of_recording(const std::function<void()>& work) {
    ok(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal));
    work();
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(a_, &graph);
    EXPECT_EQ(graph != nullptr, status == cudaSuccess);
    if (graph != nullptr) ok(cudaGraphDestroy(graph));
    return status;
  }

  cudaMemPool_t pool_ = nullptr;
  cudaStream_t a_ = nullptr, b_ = nullptr;
  cudaEvent_t event_ = nullptr;

 private:
  Left before_;
};

}  // namespace retort::standin
