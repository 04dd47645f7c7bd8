// Shared by the operator implementations; not part of the public interface.
#pragma once

#include "engine/autograd.h"
#include "engine/stream.h"
#include "engine/tensor.h"
#include "engine/trace.h"

namespace retort::ops {

inline Tensor like(const Tensor& x) {
  return Tensor::empty(x.shape(), x.dtype(), x.device());
}
inline Stream stream_of(const Tensor& x) {
  return current_stream(x.device());
}

inline void check_floating(const char* op, const Tensor& x) {
  check(is_floating(x.dtype()), "{}: expected a floating tensor, got {}", op, name_of(x.dtype()));
}

inline void check_rank(const char* op, const char* what, const Tensor& x, int rank) {
  check(x.rank() == rank, "{}: {} must have rank {}, got shape {}", op, what, rank, x.shape().to_string());
}

inline void check_matrix(const char* op, const Tensor& x) {
  check_floating(op, x);
  check_rank(op, "the input [M, C]", x, 2);
  check(x.dim(1) > 0, "{}: rows without elements", op);
}

inline void check_same(const char* op, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype() && a.device() == b.device(),
        "{}: {} {} on {} and {} {} on {} do not match", op, name_of(a.dtype()), a.shape().to_string(),
        a.device().to_string(), name_of(b.dtype()), b.shape().to_string(), b.device().to_string());
}

inline void check_device(const char* op, const Tensor& a, const Tensor& b) {
  check(a.device() == b.device(), "{}: one input is on {}, another on {}", op, a.device().to_string(),
        b.device().to_string());
}

// labels i32, one a row of the logits [M, C].
inline void check_labels(const char* op, const Tensor& logits, const Tensor& labels) {
  check_matrix(op, logits);
  check_device(op, logits, labels);
  check(labels.dtype() == DType::i32 && labels.numel() == logits.dim(0), "{}: {} labels {} for logits {}", op,
        name_of(labels.dtype()), labels.shape().to_string(), logits.shape().to_string());
}

// Where a backward may work in place: the incoming gradient's memory if nobody else sees it, else fresh memory.
inline Tensor reuse(const Tensor& dy) {
  return dy.exclusive() ? dy : like(dy);
}

// A loss of `x` whose kernel gives the gradient along with the value: kernel(loss [1], gradient), both views; the
// gradient is for dloss = 1, in x's shape and type, and an empty view where none is wanted.
template <typename Kernel>
Tensor loss_with_gradient(const char* op, const Tensor& x, Kernel&& kernel) {
  Tensor loss = Tensor::empty({1}, accumulation_type(x.dtype()), x.device());
  const bool wanted = autograd::active({&x});
  const Tensor gradient = wanted ? like(x) : Tensor();
  kernel(loss.view(), gradient.optional_view());
  if (wanted) {
    autograd::record(op, loss, {x}, [gradient](const Tensor& dloss, const autograd::Needs&) {
      dloss.backend().scale_by(gradient, dloss, gradient.view(), stream_of(dloss));
      return std::vector<Tensor>{gradient};
    });
  }
  return loss;
}

}  // namespace retort::ops
