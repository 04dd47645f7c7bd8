#include "models/layers.h"

namespace retort {

Conv2d::Conv2d(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out,
               const Conv2dOptions& o) {
  const Shape shape{out, o.kernel, o.kernel, in / o.groups};
  weight_ = store.parameter(name + ".weight", shape, ParameterKind::conv_weight, Initializer::kaiming_normal(shape));
  if (o.bias) {
    bias_ = store.parameter(name + ".bias", {out}, ParameterKind::bias, Initializer::kaiming_uniform(shape));
  }
  params_.stride_h = params_.stride_w = o.stride;
  params_.pad_h = params_.pad_w = o.padding;
  params_.groups = o.groups;
}

Tensor Conv2d::operator()(const Tensor& x, const ForwardMode& mode) const {
  ConvParams params = params_;
  params.math = mode.math;
  return conv2d(x, weight_->data, bias_ ? bias_->data : Tensor(), params);
}

BatchNorm::BatchNorm(ParameterStore& store, const std::string& name, std::int64_t channels, double gamma)
    : gamma_(store.parameter(name + ".weight", {channels}, ParameterKind::norm_scale, Initializer::constant(gamma))),
      beta_(store.parameter(name + ".bias", {channels}, ParameterKind::norm_shift, Initializer::constant(0.0))),
      running_mean_(store.buffer(name + ".running_mean", {channels}, DType::f32, 0.0)),
      running_var_(store.buffer(name + ".running_var", {channels}, DType::f32, 1.0)),
      counter_(store.buffer(name + ".num_batches_tracked", {1}, DType::i32, 0.0)) {}

Tensor BatchNorm::operator()(const Tensor& x, const ForwardMode& mode, Activation act, const Tensor& residual) const {
  const BatchNormStatistics statistics{running_mean_->value, running_var_->value, counter_->value};
  BatchNormParams params;
  params.act = act;
  return mode.training ? batch_norm_training(x, residual, gamma_->data, beta_->data, statistics, params)
                       : batch_norm_inference(x, residual, gamma_->data, beta_->data, statistics, params);
}

Linear::Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out)
    : weight_(store.parameter(name + ".weight", {out, in}, ParameterKind::linear_weight,
                              Initializer::kaiming_uniform({out, in}))),
      bias_(store.parameter(name + ".bias", {out}, ParameterKind::bias, Initializer::kaiming_uniform({out, in}))) {}

Tensor Linear::operator()(const Tensor& x, const ForwardMode& mode) const {
  return linear(x, weight_->data, bias_->data, mode.math);
}

}  // namespace retort
