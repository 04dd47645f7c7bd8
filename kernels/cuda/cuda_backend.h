// The CUDA backend of one device: the hand-written kernels of CudaKernels, and here memory, streams, graphs and what
// goes to cuDNN and cuBLAS. docs/cuda.md describes how the parts work together.
//
// A thread drives one device at a time: its null stream is that of the device whose allocate() or copy it called last.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/staging.h"

namespace retort::kernels {

class Convolutions;
class MatrixProducts;

class CudaBackend final : public CudaKernels {
 public:
  explicit CudaBackend(int index);
  ~CudaBackend() override;

  Device device() const override { return {DeviceType::cuda, index_}; }
  std::string description() const override { return description_; }

  void* allocate(std::size_t bytes, Stream stream) override;
  void deallocate(void* data, std::size_t bytes, Stream stream) noexcept override;
  MemoryStats memory_stats() const override;
  void reset_peak() override;
  void release_cached() override;

  void copy_from_host(const void* host, View to, Stream stream) override;
  void copy_to_host(ConstView from, void* host, Stream stream) override;
  void copy(ConstView from, View to, Stream stream) override;

  void synchronize(Stream stream) override;
  // Not ordered with the null stream from then on, but begins after all that was queued there so far.
  Stream create_stream() override;
  void destroy_stream(Stream stream) noexcept override;
  void wait(Stream waiting, Stream on) override;
  // `stream` must come from create_stream(): CUDA cannot record the null stream. Other streams take part when they
  // wait() for it inside `work`, and it must wait() for them before `work` ends.
  std::unique_ptr<Graph> capture(Stream stream, const std::function<void()>& work) override;

  void matmul(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, Math math, View y,
              Stream stream) override;
  void conv2d(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y,
              Stream stream) override;
  void conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx, Stream stream) override;
  void accumulate_conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx,
                                       Stream stream) override;
  void conv2d_backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream) override;

 private:
  void use_device() const;

  int index_;
  std::string description_;
  std::unique_ptr<DeviceMemory> memory_;
  Staging staging_;
  std::unique_ptr<Convolutions> convolutions_;
  std::unique_ptr<MatrixProducts> products_;
  std::mutex capture_mutex_;  // one recording at a time
};

}  // namespace retort::kernels
