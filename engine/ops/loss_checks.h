// What the distillation losses check of their arguments.
#pragma once

#include "engine/ops/common.h"

namespace retort::ops {

inline void check_constant(const char* op, const char* what, const Tensor& x) {
  check(!autograd::active({&x}), "{}: {} counts as a constant, but it requires a gradient; detach() it", op, what);
}

// f64 or f32: what the losses between samples are kept in.
inline void check_accumulated(const char* op, const Tensor& x) {
  check(x.dtype() == DType::f64 || x.dtype() == DType::f32, "{}: expected f32 or f64, got {}; convert it with cast()",
        op, name_of(x.dtype()));
}

}  // namespace retort::ops
