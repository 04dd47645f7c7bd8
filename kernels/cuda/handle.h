// Handle<T, destroy>: owns one C handle of a CUDA library, movable, destroyed once.
//
//   Handle<cudaEvent_t, cudaEventDestroy> event;
//   RETORT_CALL(cudaEventCreate(event.out()));
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <utility>

namespace retort::kernels {

template <typename T, auto kDestroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T value) : value_(value) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, T{})) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      value_ = std::exchange(other.value_, T{});
    }
    return *this;
  }

  T get() const { return value_; }
  explicit operator bool() const { return value_ != T{}; }
  // For functions that create: destroys what was held.
  T* out() {
    reset();
    return &value_;
  }
  // Failing to destroy has no remedy, and at the end of the process the library may be gone before us.
  void reset() noexcept {
    if (value_ != T{}) static_cast<void>(kDestroy(std::exchange(value_, T{})));
  }

 private:
  T value_{};
};

using StreamHandle = Handle<cudaStream_t, cudaStreamDestroy>;
using EventHandle = Handle<cudaEvent_t, cudaEventDestroy>;
using PoolHandle = Handle<cudaMemPool_t, cudaMemPoolDestroy>;
using GraphHandle = Handle<cudaGraph_t, cudaGraphDestroy>;
using GraphExecHandle = Handle<cudaGraphExec_t, cudaGraphExecDestroy>;
using PinnedHandle = Handle<void*, cudaFreeHost>;
using CudnnHandle = Handle<cudnnHandle_t, cudnnDestroy>;
using CublasLtHandle = Handle<cublasLtHandle_t, cublasLtDestroy>;

}  // namespace retort::kernels
