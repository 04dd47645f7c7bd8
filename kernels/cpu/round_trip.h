// bf16 on the CPU: this backend computes in f32 and converts on the way in and out (the processors it is written for
// have no bf16 arithmetic; oneDNN's emulation of it was measured four times slower than f32).
#pragma once

#include <cassert>
#include <optional>

#include "kernels/cpu/convolution.h"

namespace retort::kernels {

// An input of type f32 or bf16, readable as f32. A converted copy lives as long as the object.
class AsF32 {
 public:
  AsF32(ConstView view, MemoryPool& pool) : data_(view.as<float>()) {
    if (view.dtype == DType::f32) return;
    assert(view.dtype == DType::bf16);
    const std::int64_t n = view.numel();
    copy_.emplace(pool, static_cast<std::size_t>(n) * sizeof(float));
    float* const to = copy_->as<float>();
    const bf16* const from = view.as<bf16>();
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
    data_ = to;
  }
  const float* data() const {
    return data_;
  }

 private:
  std::optional<Workspace> copy_;
  const float* data_;
};

// An output of type f32 or bf16, to be written as f32; finish() rounds it into place.
class ToF32 {
 public:
  ToF32(View view, MemoryPool& pool) : view_(view) {
    if (view.dtype == DType::f32) return;
    assert(view.dtype == DType::bf16);
    copy_.emplace(pool, static_cast<std::size_t>(view.numel()) * sizeof(float));
  }
  float* data() { return copy_ ? copy_->as<float>() : view_.as<float>(); }
  void finish() {
    if (!copy_) return;
    const std::int64_t n = view_.numel();
    bf16* const to = view_.as<bf16>();
    const float* const from = copy_->as<float>();
#pragma omp parallel for schedule(static) if (n > 16384)
    for (std::int64_t i = 0; i < n; ++i) to[i] = bf16(from[i]);
  }

 private:
  std::optional<Workspace> copy_;
  View view_;
};

}  // namespace retort::kernels
