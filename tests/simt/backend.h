// The CUDA kernels as a device of their own: "cuda:0" of a process that has called
// set_cuda_provider(simt_provider()). Memory is the guarded heap of heap.h, kernels run through simt.h, and what a
// GPU leaves to libraries (convolutions, matrix products) goes to the CPU backend.
#pragma once

#include "kernels/cuda/launch.h"

namespace retort::simt {

class SimtBackend final : public kernels::CudaKernels {
 public:
  Device device() const override;
  std::string description() const override;
  void* allocate(std::size_t bytes, kernels::Stream stream) override;
  void deallocate(void* data, std::size_t bytes, kernels::Stream stream) noexcept override;
  kernels::MemoryStats memory_stats() const override;
  void reset_peak() override;
  void release_cached() override;
  void copy_from_host(const void* host, View to, kernels::Stream stream) override;
  void copy_to_host(ConstView from, void* host, kernels::Stream stream) override;
  void copy(ConstView from, View to, kernels::Stream stream) override;
  void synchronize(kernels::Stream stream) override;
  kernels::Stream create_stream() override;
  void destroy_stream(kernels::Stream stream) noexcept override;
  void wait(kernels::Stream waiting, kernels::Stream on) override;
  std::unique_ptr<kernels::Graph> capture(kernels::Stream stream, const std::function<void()>& work) override;

  void matmul(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, kernels::Math math, View y,
              kernels::Stream stream) override;
  void conv2d(ConstView x, ConstView w, const kernels::ConvEpilogue& epilogue, const kernels::ConvParams& params,
              View y, kernels::Stream stream) override;
  void conv2d_backward_data(ConstView dy, ConstView w, const kernels::ConvParams& params, View dx,
                            kernels::Stream stream) override;
  void conv2d_backward_weights(ConstView x, ConstView dy, const kernels::ConvParams& params, View dw,
                               kernels::Stream stream) override;
};

// One device, a SimtBackend.
kernels::CudaProvider simt_provider();

}  // namespace retort::simt
