#include "distill/training_step.h"

#include <algorithm>
#include <limits>

#include "distill/nonfinite.h"
#include "engine/autograd.h"
#include "engine/ops.h"
#include "engine/stream.h"

namespace retort {
namespace {

constexpr double kNotComputed = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TrainingStep::TrainingStep(std::vector<TrainedNetwork> networks, const Teachers* teachers, const DeviceData& data,
                           StepOptions options)
    : networks_(std::move(networks)), teachers_(teachers), data_(data), options_(std::move(options)) {
  const Device device = data_.labels.device();
  std::int64_t width = 0;
  for (const TrainedNetwork& network : networks_) {
    width += static_cast<std::int64_t>(2 + network.objective.names().size());
    metrics_.push_back(Tensor::zeros({4}, DType::f64, device));
    nonfinite_.push_back(Tensor::zeros({1}, DType::i32, device));
  }
  record_ = Tensor::zeros({width}, DType::f64, device);
  log_ = Tensor::zeros({static_cast<std::int64_t>(kSlots), width}, DType::f64, device);
}

ForwardMode TrainingStep::mode_for(const BatchBuffers& buffers, const TrainedNetwork& network) const {
  ForwardMode mode;
  mode.training = true;
  mode.math = options_.math;
  mode.samples = {buffers.indices, buffers.epoch, network.seed};
  return mode;
}

void TrainingStep::work(const BatchBuffers& buffers, int drawn) {
  buffers.produce();
  TeacherBatch taught;
  if (teachers_ != nullptr) taught = teachers_->forward(buffers.input, drawn);
  std::int64_t column = 0;
  const auto keep = [&](const Tensor& value) {
    if (!value) return record_.slice(column++, {1}).fill(kNotComputed);
    value.backend().convert(value, record_.slice(column++, {1}).view(), current_stream(value.device()));
  };
  for (std::size_t n = 0; n < networks_.size(); ++n) {
    const TrainedNetwork& network = networks_[n];
    ParameterStore* const parts = network.objective.parts();
    network.model.parameters().zero_grad();
    if (parts != nullptr) parts->zero_grad();
    {
      const ForwardMode mode = mode_for(buffers, network);
      const LossTerms terms = network.objective.evaluate({buffers, mode, teachers_, &taught});
      const Tensor logits = terms.logits.detach();
      accumulate_metrics(logits, buffers.labels, metrics_[n]);
      logits.backend().accumulate_nonfinite(logits, nonfinite_[n].view(), current_stream(logits.device()));
      keep(terms.total);
      for (const Tensor& value : terms.values) keep(value);
      keep(nonfinite_[n]);
      terms.total.backward();
    }
    network.model.parameters().finish_grad();
    if (parts != nullptr) parts->finish_grad();
    for (Optimizer* const optimizer : network.optimizers) optimizer->step();
  }
}

void TrainingStep::prepare(int epoch) {
  std::vector<bool> active;
  for (const TrainedNetwork& network : networks_) {
    network.objective.prepare(epoch);
    const std::vector<bool> own = network.objective.active();
    active.insert(active.end(), own.begin(), own.end());
  }
  if (active == active_) return;
  active_ = std::move(active);
  for (const TrainedNetwork& network : networks_) {
    for (std::size_t i = 1; i < network.optimizers.size(); ++i) {
      network.optimizers[i]->rest([&](const Parameter& part) { return network.objective.rests(part); });
    }
  }
}

void TrainingStep::run(std::span<const std::int32_t> batch, int epoch, std::span<const double> lr) {
  check(!full(), "training step: drain() was not called in time");
  auto found = buffers_.find(batch.size());
  if (found == buffers_.end()) {
    BatchBuffers buffers(data_, static_cast<std::int64_t>(batch.size()), options_.dtype, options_.augment);
    found = buffers_.emplace(batch.size(), std::move(buffers)).first;
  }
  BatchBuffers& buffers = found->second;
  buffers.set(batch, epoch);
  prepare(epoch);
  StepRecords records;
  records.samples = static_cast<std::int64_t>(batch.size());
  for (std::size_t n = 0; n < networks_.size(); ++n) {
    for (Optimizer* const optimizer : networks_[n].optimizers) optimizer->advance(lr[n]);
    records.networks.push_back({.lr = lr[n]});
  }
  records.step = networks_.at(0).optimizers.at(0)->steps();
  const int drawn = teachers_ == nullptr ? 0 : teachers_->draw(records.step);

  const Device device = data_.labels.device();
  kernels::Backend& backend = data_.labels.backend();
  const Stream stream = current_stream(device);
  last_ = {batch.size(), drawn, active_};
  Slot& slot = slots_[last_];
  if (device.is_cpu() || slot.runs == 0) {
    work(buffers, drawn);
  } else {
    if (!slot.graph) slot.graph = backend.capture(stream, [&] { work(buffers, drawn); });
    slot.graph->replay(stream);
  }
  ++slot.runs;

  const std::int64_t width = record_.numel();
  backend.copy(record_, log_.slice(static_cast<std::int64_t>(pending_.size()) * width, {width}).view(), stream);
  pending_.push_back(std::move(records));
}

std::vector<StepRecords> TrainingStep::drain() {
  const std::vector<double> values = pending_.empty() ? std::vector<double>() : log_.to_host<double>();
  const double* next = values.data();
  for (StepRecords& records : pending_) {
    for (std::size_t n = 0; n < networks_.size(); ++n) {
      const std::size_t terms = networks_[n].objective.names().size();
      records.networks[n].loss = *next++;
      records.networks[n].terms.assign(next, next + terms);
      next += terms;
      records.networks[n].nonfinite = static_cast<std::int64_t>(*next++);
    }
  }
  return std::exchange(pending_, {});
}

std::string TrainingStep::first_nonfinite(std::size_t network) const {
  const Model& model = networks_.at(network).model;
  const std::string stored = retort::first_nonfinite(model.parameters());
  if (!stored.empty()) return stored;
  check(last_.batch > 0, "training step: first_nonfinite() before any step");
  const BatchBuffers& batch = buffers_.at(last_.batch);
  batch.produce();
  ForwardMode mode = mode_for(batch, networks_[network]);
  mode.update_statistics = false;
  const std::string computed = retort::first_nonfinite(model, batch.input, mode);
  return computed.empty() ? "the loss itself" : computed;
}

std::vector<double> TrainingStep::gradient_norms(std::size_t number) const {
  const TrainedNetwork& network = networks_.at(number);
  const BatchBuffers& batch = buffers_.at(last_.batch);
  batch.produce();
  TeacherBatch taught;
  if (teachers_ != nullptr) {
    taught = teachers_->forward(batch.input, last_.drawn);
    teachers_->await(taught);  // also for a network that learns without them: the batch must outlive their work
  }
  ForwardMode mode = mode_for(batch, network);
  mode.update_statistics = false;
  ParameterStore& parameters = network.model.parameters();
  ParameterStore* const parts = network.objective.parts();
  const Tensor norm = Tensor::zeros({1}, DType::f64, parameters.device());
  std::vector<double> norms;
  for (const bool active : network.objective.active()) {
    const std::size_t term = norms.size();
    if (!active) {
      norms.push_back(kNotComputed);
      continue;
    }
    parameters.zero_grad();
    if (parts != nullptr) parts->zero_grad();
    const LossTerms terms = network.objective.evaluate({batch, mode, teachers_, &taught});
    terms.weighted.at(term).backward();
    parameters.finish_grad();
    norm.backend().norm(parameters.gradients(), norm.view(), current_stream(norm.device()));
    norms.push_back(norm.item());
  }
  return norms;
}

}  // namespace retort
