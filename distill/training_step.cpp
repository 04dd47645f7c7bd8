#include "distill/training_step.h"

#include <algorithm>

#include "engine/autograd.h"
#include "engine/stream.h"

namespace retort {

TrainingStep::TrainingStep(Model& model, Objective& objective, Optimizer& optimizer, const DeviceData& data,
                           StepOptions options)
    : model_(model), objective_(objective), optimizer_(optimizer), data_(data), options_(std::move(options)) {
  const Device device = data_.labels.device();
  const auto width = static_cast<std::int64_t>(1 + objective_.names().size());
  metrics_ = Tensor::zeros({4}, DType::f64, device);
  record_ = Tensor::zeros({width}, DType::f64, device);
  log_ = Tensor::zeros({static_cast<std::int64_t>(kSlots), width}, DType::f64, device);
}

ForwardMode TrainingStep::mode_for(const BatchBuffers& buffers) const {
  ForwardMode mode;
  mode.training = true;
  mode.math = options_.math;
  mode.samples = {buffers.indices, buffers.epoch, options_.seed};
  return mode;
}

void TrainingStep::work(const BatchBuffers& buffers) {
  buffers.produce();
  ParameterStore& parameters = model_.parameters();
  parameters.zero_grad();
  {
    const LossTerms terms = objective_.evaluate(buffers, mode_for(buffers));
    accumulate_metrics(terms.logits.detach(), buffers.labels, metrics_);
    const auto keep = [&](std::int64_t column, const Tensor& value) {
      value.backend().convert(value, record_.slice(column, {1}).view(), current_stream(value.device()));
    };
    keep(0, terms.total);
    for (std::size_t i = 0; i < terms.values.size(); ++i) keep(static_cast<std::int64_t>(i) + 1, terms.values[i]);
    terms.total.backward();
  }
  parameters.finish_grad();
  optimizer_.step();
}

void TrainingStep::run(std::span<const std::int32_t> batch, int epoch, double lr) {
  check(!full(), "training step: drain() was not called in time");
  auto found = slots_.find(batch.size());
  if (found == slots_.end()) {
    BatchBuffers buffers(data_, static_cast<std::int64_t>(batch.size()), options_.dtype, options_.augment);
    found = slots_.emplace(batch.size(), Slot{std::move(buffers), 0, nullptr}).first;
  }
  Slot& slot = found->second;
  slot.buffers.set(batch, epoch);
  optimizer_.advance(lr);

  const Device device = data_.labels.device();
  kernels::Backend& backend = data_.labels.backend();
  const Stream stream = current_stream(device);
  if (device.is_cpu() || slot.runs == 0) {
    work(slot.buffers);
  } else {
    if (!slot.graph) slot.graph = backend.capture(stream, [&] { work(slot.buffers); });
    slot.graph->replay(stream);
  }
  ++slot.runs;
  last_slot_ = &slot;

  const std::int64_t width = record_.numel();
  backend.copy(record_, log_.slice(static_cast<std::int64_t>(pending_.size()) * width, {width}).view(), stream);
  StepRecord record;
  record.step = optimizer_.steps();
  record.samples = static_cast<std::int64_t>(batch.size());
  record.lr = lr;
  pending_.push_back(std::move(record));
}

std::vector<StepRecord> TrainingStep::drain() {
  const std::vector<double> values = pending_.empty() ? std::vector<double>() : log_.to_host<double>();
  const auto width = static_cast<std::size_t>(record_.numel());
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    const double* row = values.data() + i * width;
    pending_[i].loss = row[0];
    pending_[i].terms.assign(row + 1, row + width);
  }
  return std::exchange(pending_, {});
}

std::string TrainingStep::first_nonfinite() const {
  const autograd::NoGradGuard no_grad;
  const auto bad = [](const Tensor& t) {
    const Tensor count = Tensor::zeros({1}, DType::i32, t.device());
    t.backend().accumulate_nonfinite(t, count.view(), current_stream(t.device()));
    return count.to_host<std::int32_t>()[0] > 0;
  };
  for (const auto& parameter : model_.parameters().parameters()) {
    if (bad(parameter->value)) return "parameter " + parameter->name;
  }
  check(last_slot_ != nullptr, "training step: first_nonfinite() before any step");
  const BatchBuffers& batch = last_slot_->buffers;
  batch.produce();
  if (bad(batch.input)) return "the network's input";
  const std::vector<std::string> names = model_.tap_names();
  const ModelOutput output = model_.forward(batch.input, mode_for(batch), TapNames(names.begin(), names.end()));
  for (const std::string& name : names) {
    if (bad(output.taps.at(name))) return "feature map " + name;
  }
  return bad(output.logits) ? "the logits" : "the loss itself";
}

}  // namespace retort
