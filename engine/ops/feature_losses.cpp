#include "engine/ops/feature_losses.h"

#include "engine/ops/common.h"
#include "engine/ops/loss_checks.h"

namespace retort {

using namespace ops;
using kernels::PointwiseLoss;

namespace {

Tensor pointwise_loss(const char* op, PointwiseLoss kind, double beta, const Tensor& x, const Tensor& target) {
  check_floating(op, x);
  check_same(op, x, target);
  check_constant(op, "the target", target);
  check(x.numel() > 0, "{}: of an empty tensor", op);
  return loss_with_gradient(op, x, [&](View loss, View gradient) {
    x.backend().pointwise_loss(kind, beta, x, target, loss, gradient, stream_of(x));
  });
}

}  // namespace

Tensor mean_squared_error(const Tensor& x, const Tensor& target) {
  return pointwise_loss("mean_squared_error", PointwiseLoss::squared, 1.0, x, target);
}

Tensor smooth_l1(const Tensor& x, const Tensor& target, double beta) {
  check(beta > 0, "smooth_l1: beta {} is not above 0; for |x - t| alone choose a small one", beta);
  return pointwise_loss("smooth_l1", PointwiseLoss::smooth_l1, beta, x, target);
}

Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& target) {
  return pointwise_loss("binary_cross_entropy_with_logits", PointwiseLoss::binary_cross_entropy, 1.0, x, target);
}

Tensor channel_energy(const Tensor& x, double p) {
  check_floating("channel_energy", x);
  check_rank("channel_energy", "the feature map [N, H, W, C]", x, 4);
  check(p > 0, "channel_energy: p {} is not above 0", p);
  check(x.dim(3) > 0, "channel_energy: a feature map without channels, {}", x.shape().to_string());
  Tensor y = Tensor::empty({x.dim(0), x.dim(1) * x.dim(2)}, accumulation_type(x.dtype()), x.device());
  x.backend().channel_energy(x, p, y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("channel_energy", y, {x}, [x = x.detach(), p](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(x);
      x.backend().channel_energy_backward(x, p, dy, dx.view(), stream_of(x));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor channels_first(const Tensor& x) {
  check_floating("channels_first", x);
  check(x.rank() == 3 || x.rank() == 4,
        "channels_first: the feature map must be [N, H, W, C] or [N, R, C], got shape {}", x.shape().to_string());
  const Shape rows{x.dim(0), x.rank() == 4 ? x.dim(1) * x.dim(2) : x.dim(1), x.shape().last()};
  Tensor y = Tensor::empty({rows[0], rows[2], rows[1]}, x.dtype(), x.device());
  x.backend().transpose_inner(x.reshaped(rows), y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("channels_first", y, {x}, [shape = x.shape(), rows](Tensor dy, const autograd::Needs&) {
      Tensor dx = Tensor::empty(rows, dy.dtype(), dy.device());
      dy.backend().transpose_inner(dy, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx.reshaped(shape)};
    });
  }
  return y;
}

Tensor neuron_selectivity(const Tensor& student, const Tensor& teacher) {
  const char* const op = "neuron_selectivity";
  check_accumulated(op, student);
  check_rank(op, "the student's columns [N, Cs, D]", student, 3);
  check_rank(op, "the teacher's columns [N, Ct, D]", teacher, 3);
  check(student.dtype() == teacher.dtype(), "{}: the student's {} and the teacher's {} do not match", op,
        name_of(student.dtype()), name_of(teacher.dtype()));
  check_device(op, student, teacher);
  check(student.dim(0) == teacher.dim(0) && student.dim(2) == teacher.dim(2),
        "{}: student {} and teacher {} differ in more than their channels (axis 1)", op, student.shape().to_string(),
        teacher.shape().to_string());
  check(student.numel() > 0 && teacher.numel() > 0, "{}: of an empty tensor", op);
  check_constant(op, "the teacher", teacher);
  return loss_with_gradient(op, student, [&](View loss, View gradient) {
    student.backend().neuron_selectivity(student, teacher, loss, gradient, stream_of(student));
  });
}

Tensor variational_information(const Tensor& mean, const Tensor& target, const Tensor& raw_variance, double epsilon) {
  const char* const op = "variational_information";
  check_floating(op, mean);
  check_same(op, mean, target);
  check_constant(op, "the target", target);
  check_device(op, mean, raw_variance);
  check(mean.rank() >= 1 && mean.numel() > 0, "{}: of an empty tensor", op);
  check(raw_variance.shape() == Shape{mean.shape().last()} && raw_variance.dtype() == accumulation_type(mean.dtype()),
        "{}: the variances must be {} [{}], one a channel of {}, got {} {}", op,
        name_of(accumulation_type(mean.dtype())), mean.shape().last(), mean.shape().to_string(),
        name_of(raw_variance.dtype()), raw_variance.shape().to_string());
  check(epsilon >= 0, "{}: epsilon {} is below 0", op, epsilon);
  Tensor loss = Tensor::empty({1}, raw_variance.dtype(), mean.device());
  const Tensor dmean = autograd::active({&mean}) ? like(mean) : Tensor();
  const Tensor draw = autograd::active({&raw_variance}) ? like(raw_variance) : Tensor();
  mean.backend().variational_information(mean, target, raw_variance, epsilon, loss.view(), dmean.optional_view(),
                                         draw.optional_view(), stream_of(mean));
  if (dmean || draw) {
    autograd::record(op, loss, {mean, raw_variance}, [dmean, draw](const Tensor& dloss, const autograd::Needs&) {
      for (const Tensor& gradient : {dmean, draw}) {
        if (gradient) dloss.backend().scale_by(gradient, dloss, gradient.view(), stream_of(dloss));
      }
      return std::vector<Tensor>{dmean, draw};
    });
  }
  return loss;
}

Tensor reverse_gradient(const Tensor& x, double strength) {
  check_floating("reverse_gradient", x);
  Tensor y = x.reshaped(x.shape());
  if (autograd::active({&x})) {
    autograd::record("reverse_gradient", y, {x}, [strength](const Tensor& dy, const autograd::Needs&) {
      const Tensor dx = reuse(dy);
      dy.backend().scale(dy, -strength, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

}  // namespace retort
