#include "engine/ops/logit_losses.h"

#include <cmath>

#include "engine/ops/common.h"
#include "engine/ops/shape.h"

namespace retort {

using namespace ops;

namespace {

// Two arrays of logits [B, C] of one shape, type and device; `b` is a constant.
void check_pair(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b) {
  check_matrix(op, a);
  check(a.shape() == b.shape(), "{}: {} {} and {} {} do not match", op, name_a, a.shape().to_string(), name_b,
        b.shape().to_string());
  check(a.dtype() == b.dtype(), "{}: {} are {}, {} are {}", op, name_a, name_of(a.dtype()), name_b, name_of(b.dtype()));
  check_device(op, a, b);
  check(a.dim(0) > 0, "{}: an empty batch", op);
}

void check_teacher(const char* op, const Tensor& student, const Tensor& teacher) {
  check_pair(op, "student logits", student, "teacher logits", teacher);
  check(!autograd::active({&teacher}), "{}: the teacher logits require a gradient, but are a constant; detach() them",
        op);
}

void check_temperature(const char* op, double temperature) {
  check(temperature > 0, "{}: the temperature must be positive, got {}", op, temperature);
  check(std::isfinite(temperature), "{}: the temperature must be finite", op);
}

Tensor soft_target_loss(const char* op, const Tensor& student, const Tensor& teacher, double temperature,
                        bool subtract_entropy) {
  check_teacher(op, student, teacher);
  check_temperature(op, temperature);
  return loss_with_gradient(op, student, [&](View loss, View gradient) {
    student.backend().soft_target_loss(student, teacher, temperature, subtract_entropy, loss, gradient,
                                       stream_of(student));
  });
}

}  // namespace

Tensor standardize_rows(const Tensor& x, double epsilon) {
  check_matrix("standardize_rows", x);
  check(x.dim(1) > 1, "standardize_rows: a row of one element has no standard deviation");
  Tensor y = like(x), deviation = Tensor::empty({x.dim(0)}, accumulation_type(x.dtype()), x.device());
  x.backend().standardize_rows(x, epsilon, y.view(), deviation.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("standardize_rows", y, {x},
                     [y = y.detach(), deviation, epsilon](const Tensor& dy, const autograd::Needs&) {
                       Tensor dx = like(dy);
                       dy.backend().standardize_rows_backward(y, deviation, dy, epsilon, dx.view(), stream_of(dy));
                       return std::vector<Tensor>{dx};
                     });
  }
  return y;
}

Tensor soft_targets(const Tensor& student, const Tensor& teacher, double temperature) {
  return soft_target_loss("soft_targets", student, teacher, temperature, true);
}

Tensor soft_cross_entropy(const Tensor& student, const Tensor& teacher, double temperature) {
  return soft_target_loss("soft_cross_entropy", student, teacher, temperature, false);
}

Tensor decoupled_kd(const Tensor& student, const Tensor& teacher, const Tensor& labels, double alpha, double beta,
                    double temperature) {
  check_teacher("decoupled_kd", student, teacher);
  check_labels("decoupled_kd", student, labels);
  check_temperature("decoupled_kd", temperature);
  check(student.dim(1) > 1, "decoupled_kd: needs two classes at least");
  return loss_with_gradient("decoupled_kd", student, [&](View loss, View gradient) {
    student.backend().decoupled_loss(student, teacher, labels, alpha, beta, temperature, loss, gradient,
                                     stream_of(student));
  });
}

Tensor pearson_distance(const Tensor& x, const Tensor& y, bool columns, double epsilon) {
  check_pair("pearson_distance", "x", x, "y", y);
  check(!autograd::active({&y}), "pearson_distance: y requires a gradient, but is a constant; detach() it");
  return loss_with_gradient("pearson_distance", x, [&](View loss, View gradient) {
    x.backend().pearson_loss(x, y, columns, epsilon, loss, gradient, stream_of(x));
  });
}

Tensor mean_softmax_logits(const std::vector<Tensor>& logits, double temperature) {
  check(!logits.empty(), "mean_softmax_logits: no logits");
  check_temperature("mean_softmax_logits", temperature);
  const Tensor& first = logits[0];
  for (const Tensor& x : logits) {
    check_pair("mean_softmax_logits", "the first logits", first, "others", x);
    autograd::require_no_grad("mean_softmax_logits", {&x});
  }
  const Shape stacked{static_cast<std::int64_t>(logits.size()), first.dim(0), first.dim(1)};
  const Tensor x = concatenate(logits, 0).reshaped(stacked);
  Tensor y = like(first);
  x.backend().mean_softmax_logits(x, temperature, y.view(), stream_of(x));
  return y;
}

void accumulate_agreement(const Tensor& a, const Tensor& b, const Tensor& sums) {
  check_pair("accumulate_agreement", "a", a, "b", b);
  autograd::require_no_grad("accumulate_agreement", {&a, &b});
  check(sums.dtype() == DType::f64 && sums.numel() == 3 && sums.device() == a.device(),
        "accumulate_agreement: sums must be f64 [3] on {}", a.device().to_string());
  a.backend().accumulate_agreement(a, b, sums.view(), stream_of(a));
}

}  // namespace retort
