// The parts of the CPU convolution: one geometry, and the algorithms that convolution.cpp chooses from.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/memory_pool.h"
#include "kernels/kernels.h"

namespace retort::kernels {

enum class ConvPass : std::uint8_t { forward, backward_data, backward_weights };

// x [n, h, w, c], y [n, oh, ow, o], weights [o, kh, kw, c / groups].
struct ConvGeometry {
  std::int64_t n = 0, h = 0, w = 0, c = 0;
  std::int64_t oh = 0, ow = 0, o = 0;
  std::int64_t kh = 0, kw = 0;
  std::int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;

  bool operator==(const ConvGeometry&) const = default;
};

// ConvEpilogue (kernels.h) in one type.
template <typename T>
struct Epilogue {
  const T* bias = nullptr;
  const T* residual = nullptr;
  Activation act = Activation::identity;
};

// Memory from the pool for the time of one call.
class Workspace {
 public:
  Workspace(MemoryPool& pool, std::size_t bytes) : pool_(pool), bytes_(bytes), data_(pool.allocate(bytes)) {}
  ~Workspace() { pool_.deallocate(data_, bytes_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  MemoryPool& pool_;
  std::size_t bytes_;
  void* data_;
};

// oneDNN's direct algorithms on plain NHWC activations, f32 (convolution_onednn.cpp).
void onednn_forward(const ConvGeometry& g, const float* x, const float* w, const Epilogue<float>& epilogue, float* y,
                    MemoryPool& pool);
void onednn_backward_data(const ConvGeometry& g, const float* dy, const float* w, float* dx, MemoryPool& pool);
void onednn_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool);

// Winograd F(4x4, 3x3) on plain NHWC, f32 (convolution_winograd*.cpp): kernel 3x3, stride 1, no dilation, one group,
// padding 0 to 2, channels in multiples of 16.
void winograd_forward(const ConvGeometry& g, const float* x, const float* w, const Epilogue<float>& epilogue, float* y,
                      MemoryPool& pool);
void winograd_backward_data(const ConvGeometry& g, const float* dy, const float* w, float* dx, MemoryPool& pool);
void winograd_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool);

// Direct, by packed register tiles, f32 (convolution_tiled.cpp): one group, channels in multiples of 16.
void tiled_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool);

// Plain loops in f64 (convolution_f64.cpp): every product is added in f64, in a fixed order.
void f64_forward(const ConvGeometry& g, const double* x, const double* w, const Epilogue<double>& epilogue, double* y,
                 MemoryPool& pool);
void f64_backward_data(const ConvGeometry& g, const double* dy, const double* w, double* dx, MemoryPool& pool);
void f64_backward_weights(const ConvGeometry& g, const double* x, const double* dy, double* dw, MemoryPool& pool);

}  // namespace retort::kernels
