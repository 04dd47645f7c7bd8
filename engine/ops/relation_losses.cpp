#include "engine/ops/relation_losses.h"

#include "engine/ops/common.h"
#include "engine/ops/loss_checks.h"

namespace retort {

using namespace ops;

namespace {

void check_samples(const char* op, const Tensor& x) {
  check_accumulated(op, x);
  check_rank(op, "the samples [B, D]", x, 2);
  check(x.dim(1) > 0, "{}: samples without elements", op);
}

void check_batch(const char* op, const Tensor& x) {
  check(x.dim(0) >= 2, "{}: needs at least 2 samples in the batch, got {}", op, x.dim(0));
}

void check_relations(const char* op, const Tensor& student, const Tensor& teacher) {
  check_accumulated(op, student);
  check_rank(op, "the relations [B, B]", student, 2);
  check(student.dim(0) == student.dim(1), "{}: relations between samples are square, got shape {}", op,
        student.shape().to_string());
  check_same(op, student, teacher);
  check_batch(op, student);
  check_constant(op, "the teacher", teacher);
}

}  // namespace

Tensor pairwise_squared_distances(const Tensor& x) {
  const char* const op = "pairwise_squared_distances";
  check_samples(op, x);
  Tensor y = Tensor::empty({x.dim(0), x.dim(0)}, x.dtype(), x.device());
  x.backend().pairwise_squared_distances(x, y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record(op, y, {x}, [x = x.detach()](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(x);
      x.backend().pairwise_squared_distances_backward(x, dy, dx.view(), stream_of(x));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor distance_loss(const Tensor& student, const Tensor& teacher, const DistanceLossOptions& options) {
  check_relations("distance_loss", student, teacher);
  check(options.epsilon >= 0, "distance_loss: epsilon {} is below 0", options.epsilon);
  const kernels::DistanceLossParams params{options.normalize, options.squared, options.epsilon};
  return loss_with_gradient("distance_loss", student, [&](View loss, View gradient) {
    student.backend().distance_loss(student, teacher, params, loss, gradient, stream_of(student));
  });
}

Tensor angle_loss(const Tensor& student, const Tensor& teacher, double epsilon) {
  check_relations("angle_loss", student, teacher);
  check(epsilon >= 0, "angle_loss: epsilon {} is below 0", epsilon);
  return loss_with_gradient("angle_loss", student, [&](View loss, View gradient) {
    student.backend().angle_loss(student, teacher, epsilon, loss, gradient, stream_of(student));
  });
}

Tensor probability_transfer(const Tensor& student, const Tensor& teacher, double epsilon) {
  check_relations("probability_transfer", student, teacher);
  check(epsilon >= 0, "probability_transfer: epsilon {} is below 0", epsilon);
  return loss_with_gradient("probability_transfer", student, [&](View loss, View gradient) {
    student.backend().probability_transfer(student, teacher, epsilon, loss, gradient, stream_of(student));
  });
}

Tensor correlation_congruence(const Tensor& a, const Tensor& b) {
  const char* const op = "correlation_congruence";
  check_samples(op, a);
  check_same(op, a, b);
  check_batch(op, a);
  const bool wanted = autograd::active({&a, &b});
  Tensor loss = Tensor::empty({1}, a.dtype(), a.device());
  const Tensor gradient = wanted ? like(a) : Tensor();
  a.backend().correlation_congruence(a, b, loss.view(), gradient.optional_view(), stream_of(a));
  if (wanted) {
    autograd::record(op, loss, {a, b}, [gradient](const Tensor& dloss, const autograd::Needs& needs) {
      dloss.backend().scale_by(gradient, dloss, gradient.view(), stream_of(dloss));
      if (!needs[1]) return std::vector<Tensor>{gradient, {}};
      // Each input has a gradient of its own to keep, unless the first has none.
      const Tensor negative = needs[0] ? like(gradient) : gradient;
      dloss.backend().scale(gradient, -1.0, negative.view(), stream_of(dloss));
      return std::vector<Tensor>{needs[0] ? gradient : Tensor(), negative};
    });
  }
  return loss;
}

}  // namespace retort
