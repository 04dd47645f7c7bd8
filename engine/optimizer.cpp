#include "engine/optimizer.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/stream.h"
#include "engine/suggest.h"

namespace retort {
namespace {

const char* name_of(OptimizerOptions::Rule rule) {
  switch (rule) {
    case OptimizerOptions::Rule::sgd:
      return "sgd";
    case OptimizerOptions::Rule::adam:
      return "adam";
    case OptimizerOptions::Rule::adamw:
      return "adamw";
  }
  return "?";
}

}  // namespace

Optimizer::Optimizer(ParameterStore& parameters, const OptimizerOptions& options)
    : parameters_(parameters), options_(options) {
  check(parameters.materialized(), "optimizer: made before the parameters were materialized");
  const Tensor& values = parameters.values();
  const bool sgd = options.rule == OptimizerOptions::Rule::sgd;
  const auto zeros = [&] { return Tensor::zeros(values.shape(), values.dtype(), values.device()); };
  if (!sgd || options.momentum != 0) moment1_ = zeros();
  if (!sgd) moment2_ = zeros();
  decay_scale_ = parameters.chunk_table([&](const Parameter& p) { return options.decay_all || is_weight(p.kind); });
  lr_scale_ = Tensor::zeros(decay_scale_.shape(), decay_scale_.dtype(), values.device());
  rest([](const Parameter&) { return false; });
  lr_ = Tensor::zeros({1}, DType::f64, values.device());
  step_ = Tensor::zeros({1}, DType::i32, values.device());
  if (options.clip_grad_norm > 0) gradient_norm_ = Tensor::zeros({1}, DType::f64, values.device());
}

void Optimizer::rest(const std::function<bool(const Parameter&)>& which) {
  const Tensor table =
      parameters_.chunk_table([&](const Parameter& p) { return p.frozen || which(p) ? 0.0 : p.lr_factor; });
  table.backend().copy(table, lr_scale_.view(), current_stream(table.device()));
}

void Optimizer::advance(double lr) {
  check(std::isfinite(lr) && lr >= 0, "optimizer: a learning rate of {}", lr);
  check(steps_ < std::numeric_limits<std::int32_t>::max(), "optimizer: {} steps are as many as it counts", steps_);
  ++steps_;
  const auto number = static_cast<std::int32_t>(steps_);
  lr_.copy_from_host(&lr);
  step_.copy_from_host(&number);
}

void Optimizer::step() {
  check(steps_ > 0, "optimizer: step() before advance()");
  const Tensor& values = parameters_.values();
  if (values.numel() == 0) return;
  const Stream stream = current_stream(values.device());
  if (gradient_norm_) values.backend().norm(parameters_.gradients(), gradient_norm_.view(), stream);
  kernels::OptimizerArgs args;
  args.rule = options_.rule;
  args.parameter = values.view();
  args.shadow = parameters_.shadow().optional_view();
  args.gradient = parameters_.gradients();
  args.moment1 = moment1_.optional_view();
  args.moment2 = moment2_.optional_view();
  args.decay_scale = decay_scale_;
  args.lr_scale = lr_scale_;
  args.lr = lr_;
  args.step = step_;
  args.gradient_norm = gradient_norm_;
  args.max_norm = options_.clip_grad_norm;
  args.weight_decay = options_.weight_decay;
  args.momentum = options_.momentum;
  args.nesterov = options_.nesterov;
  args.beta1 = options_.beta1;
  args.beta2 = options_.beta2;
  args.epsilon = options_.epsilon;
  values.backend().optimizer_step(args, stream);
}

void Optimizer::append_state(std::vector<NamedArray>& arrays) const {
  const std::string prefix = kStatePrefix;
  NamedArray count{prefix + name_of(options_.rule) + ".step", FileType::i64, {}, std::vector<std::byte>(8)};
  std::memcpy(count.bytes.data(), &steps_, 8);
  arrays.push_back(std::move(count));
  if (moment1_) parameters_.append_flat(moment1_, prefix + "moment1.", arrays);
  if (moment2_) parameters_.append_flat(moment2_, prefix + "moment2.", arrays);
}

void Optimizer::read_state(const WeightFile& file) {
  const std::string prefix = kStatePrefix, name = prefix + name_of(options_.rule) + ".step";
  const NamedArray* const count = file.find(name);
  check(count != nullptr && count->dtype == FileType::i64 && count->bytes.size() == 8,
        "{}: {} is missing: the state of another optimizer", file.path, in_quotes(name));
  std::int64_t steps = 0;
  std::memcpy(&steps, count->bytes.data(), 8);
  check(steps >= 0 && steps <= std::numeric_limits<std::int32_t>::max(), "{}: {} is {}", file.path, in_quotes(name),
        steps);
  if (moment1_) parameters_.read_flat(file, prefix + "moment1.", moment1_);
  if (moment2_) parameters_.read_flat(file, prefix + "moment2.", moment2_);
  steps_ = steps;
}

}  // namespace retort
