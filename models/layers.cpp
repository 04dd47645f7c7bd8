#include "models/layers.h"

#include <cmath>

#include "engine/suggest.h"

namespace retort {

void LayerStore::fold() {
  check(materialized() && !folded_, "parameters: fold() {}", folded_ ? "a second time" : "before materialize()");
  freeze([](const Parameter&) { return true; });
  for (const auto& work : folds_) {
    for (auto& constant : work()) constants_.push_back(std::move(constant));
  }
  folded_ = true;
}

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
  BatchNormStatistics statistics{running_mean_->value, running_var_->value, counter_->value};
  if (mode.training && !mode.update_statistics) {
    statistics = {running_mean_->value.clone(), running_var_->value.clone(), counter_->value.clone()};
  }
  BatchNormParams params;
  params.act = act;
  return mode.training ? batch_norm_training(x, residual, gamma_->data, beta_->data, statistics, params)
                       : batch_norm_inference(x, residual, gamma_->data, beta_->data, statistics, params);
}

ConvNorm::ConvNorm(LayerStore& store, const std::string& conv, const std::string& norm, std::int64_t in,
                   std::int64_t out, const Conv2dOptions& options, double gamma)
    : conv_(store, conv, in, out, options), norm_(store, norm, out, gamma), folded_(std::make_shared<Folded>()) {
  store.on_fold([conv = conv_, norm = norm_, to = folded_] { return fold(conv, norm, *to); });
}

Tensor ConvNorm::operator()(Tensor x, const ForwardMode& mode, Activation act, const Tensor& residual) const {
  if (!folded_->weight) {
    x = conv_(x, mode);
    return norm_(x, mode, act, residual);
  }
  if (mode.training) {
    fail("{}: the model is folded, for inference only; train one that is not", in_quotes(conv_.weight_->name));
  }
  ConvParams params = conv_.params_;
  params.math = mode.math;
  return conv2d_inference(x, folded_->weight, folded_->bias, residual, act, params);
}

// gamma (w * x + b - mean) / sqrt(var + epsilon) + beta = w' * x + b', per output channel with
// scale = gamma / sqrt(var + epsilon): w' = scale w, b' = beta + scale (b - mean). From the master values, in f64;
// rounded once.
NamedTensors ConvNorm::fold(const Conv2d& conv, const BatchNorm& norm, Folded& to) {
  const Parameter& weight = *conv.weight_;
  std::vector<double> w = weight.value.to_doubles(), b = norm.beta_->value.to_doubles();
  const std::vector<double> gamma = norm.gamma_->value.to_doubles(), mean = norm.running_mean_->value.to_doubles(),
                            var = norm.running_var_->value.to_doubles(),
                            conv_bias = conv.bias_ ? conv.bias_->value.to_doubles() : std::vector<double>(b.size(), 0);
  const std::size_t filter = w.size() / b.size();
  for (std::size_t o = 0; o < b.size(); ++o) {
    const double scale = gamma[o] / std::sqrt(var[o] + BatchNormParams{}.epsilon);
    b[o] += scale * (conv_bias[o] - mean[o]);
    double sum = b[o];
    for (std::size_t i = o * filter; i < (o + 1) * filter; ++i) sum += w[i] *= scale;
    // A fused activation may turn NaN into 0: what has gone bad must show here.
    check(std::isfinite(sum), "{}: channel {} is not finite with its batch normalisation folded in",
          in_quotes(weight.name), o);
  }
  const Device device = weight.data.device();
  to.weight = Tensor::from(w, weight.shape).to(weight.data.dtype()).to(device);
  to.bias = Tensor::from(b, norm.beta_->shape).to(norm.beta_->data.dtype()).to(device);
  const std::string layer = weight.name.substr(0, weight.name.rfind('.'));
  return {{weight.name, to.weight}, {layer + ".bias", to.bias}};
}

Linear::Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out)
    : weight_(store.parameter(name + ".weight", {out, in}, ParameterKind::linear_weight,
                              Initializer::kaiming_uniform({out, in}))),
      bias_(store.parameter(name + ".bias", {out}, ParameterKind::bias, Initializer::kaiming_uniform({out, in}))) {}

Tensor Linear::operator()(const Tensor& x, const ForwardMode& mode) const {
  return linear(x, weight_->data, bias_->data, mode.math);
}

}  // namespace retort
