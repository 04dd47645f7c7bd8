#include "engine/ops/batch_norm.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

namespace {

void check_arguments(const char* op, const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                     const BatchNormStatistics& s) {
  check_floating(op, x);
  check(x.rank() >= 2, "{}: the input [..., C] has shape {}", op, x.shape().to_string());
  if (residual) check_same(op, x, residual);
  const DType type = accumulation_type(x.dtype());
  for (const Tensor* t : {&gamma, &beta, &s.running_mean, &s.running_var}) {
    check(t->dtype() == type && t->numel() == x.shape().last() && t->device() == x.device(),
          "{}: parameters must be {} [{}], got {} {}", op, name_of(type), x.shape().last(), name_of(t->dtype()),
          t->shape().to_string());
  }
}

struct Saved {
  Tensor x, y, gamma, beta, mean, invstd;  // beta: where y follows from x
  Activation act;
  bool batch_statistics;
};

std::vector<Tensor> backward(const Saved& s, Tensor dy, const autograd::Needs& needs) {
  const bool wants_residual = needs[1];
  std::vector<Tensor> gradients(4);
  const Tensor dgamma = needs.place(2, s.gamma.shape(), s.gamma.dtype(), s.gamma.device());
  const Tensor dbeta = needs.place(3, s.gamma.shape(), s.gamma.dtype(), s.gamma.device());
  Tensor dx, dresidual;
  if (needs[0]) dx = like(dy);
  // Without an activation the residual's gradient is dy itself.
  if (wants_residual && s.act != Activation::identity) dresidual = reuse(dy);
  dy.backend().batch_norm_backward(s.x, s.y, dy, s.gamma, s.beta, s.mean, s.invstd, s.act, s.batch_statistics,
                                   dx.optional_view(), dresidual.optional_view(), dgamma.view(), dbeta.view(),
                                   stream_of(dy));
  gradients[0] = dx;
  gradients[1] = wants_residual && !dresidual ? dy : dresidual;
  gradients[2] = dgamma;
  gradients[3] = dbeta;
  return gradients;
}

void record(const char* op, Tensor& y, const Tensor& residual, const Tensor& beta, const Tensor& x, const Tensor& gamma,
            const Tensor& mean, const Tensor& invstd, Activation act, bool batch_statistics) {
  Saved saved{.x = x.detach(),
              .y = act == Activation::identity ? Tensor() : y.detach(),
              .gamma = gamma.detach(),
              .beta = batch_statistics && !residual ? beta.detach() : Tensor(),
              .mean = mean,
              .invstd = invstd,
              .act = act,
              .batch_statistics = batch_statistics};
  autograd::record(op, y, {x, residual, gamma, beta},
                   [saved = std::move(saved)](Tensor dy, const autograd::Needs& needs) {
                     return backward(saved, std::move(dy), needs);
                   });
}

}  // namespace

Tensor batch_norm_training(const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                           const BatchNormStatistics& s, const BatchNormParams& params) {
  check_arguments("batch_norm", x, residual, gamma, beta, s);
  check(x.shape().rows() > 1, "batch_norm: needs more than one value per channel in training, got shape {}",
        x.shape().to_string());
  Tensor y = like(x), mean = like(gamma), invstd = like(gamma);
  x.backend().batch_norm_training(x, residual, gamma, beta, params.momentum, params.epsilon, params.act, y.view(),
                                  mean.view(), invstd.view(), s.running_mean.view(), s.running_var.view(),
                                  s.counter.view(), stream_of(x));
  if (autograd::active({&x, &residual, &gamma, &beta})) {
    record("batch_norm", y, residual, beta, x, gamma, mean, invstd, params.act, true);
  }
  return y;
}

Tensor batch_norm_inference(const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                            const BatchNormStatistics& s, const BatchNormParams& params) {
  check_arguments("batch_norm", x, residual, gamma, beta, s);
  Tensor y = like(x);
  x.backend().batch_norm_inference(x, residual, gamma, beta, s.running_mean, s.running_var, params.epsilon, params.act,
                                   y.view(), stream_of(x));
  trace::record("batch_norm_inference", y, {&x, &residual, &gamma, &beta, &s.running_mean, &s.running_var},
                BatchNormAttributes{params.epsilon, params.act});
  if (autograd::active({&x, &residual, &gamma, &beta})) {
    Tensor invstd = like(gamma);
    x.backend().reciprocal_sqrt(s.running_var, params.epsilon, invstd.view(), stream_of(x));
    record("batch_norm", y, residual, beta, x, gamma, s.running_mean.clone(), invstd, params.act, false);
  }
  return y;
}

}  // namespace retort
