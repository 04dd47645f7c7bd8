// One step: gather and augment the batch, forward, losses, backward, clip, optimizer, metrics.
//
// Nothing in it waits for the device. The first batch of a size runs directly, which lets libraries pick their
// algorithms; from the second on, a CUDA device replays one graph of the whole step. What a step logs is copied to a
// slot of a device buffer and read by drain().
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"
#include "distill/objective.h"
#include "engine/optimizer.h"
#include "models/model.h"

namespace retort {

struct StepRecord {
  std::int64_t step = 0;  // number of the step, from 1
  std::int64_t samples = 0;
  double lr = 0;
  double loss = 0;
  std::vector<double> terms;  // unweighted, in the order of Objective::names()
};

struct StepOptions {
  kernels::AugmentParams augment;
  DType dtype = DType::f32;  // of the input and the activations
  Math math = Math::standard;
  std::uint64_t seed = 0;
};

class TrainingStep {
 public:
  // All references must outlive the step. The model's parameters, the data and the optimizer share one device.
  TrainingStep(Model& model, Objective& objective, Optimizer& optimizer, const DeviceData& data, StepOptions options);

  // Queues one step on the samples `batch` at learning rate `lr`; `epoch` counts from 0.
  void run(std::span<const std::int32_t> batch, int epoch, double lr);
  // True when drain() must be called before the next run().
  bool full() const { return pending_.size() == kSlots; }
  // Waits for the device; the records of all steps since the last call, in order.
  std::vector<StepRecord> drain();

  // For the message that stops a run: the first tensor with a NaN or infinity - a parameter, the input, or a feature
  // map of another forward pass on the batch last run. Waits for the device.
  std::string first_nonfinite() const;

  // f64 [4], see accumulate_metrics: sums over the batches since the last fill(0).
  const Tensor& metrics() const { return metrics_; }

 private:
  static constexpr std::size_t kSlots = 64;

  struct Slot {
    BatchBuffers buffers;
    std::int64_t runs = 0;
    std::unique_ptr<kernels::Graph> graph;
  };

  void work(const BatchBuffers& buffers);
  ForwardMode mode_for(const BatchBuffers& buffers) const;

  Model& model_;
  Objective& objective_;
  Optimizer& optimizer_;
  DeviceData data_;
  StepOptions options_;
  std::map<std::size_t, Slot> slots_;  // by batch size: the full one and the last of an epoch
  Slot* last_slot_ = nullptr;
  Tensor metrics_;
  Tensor record_;  // f64 [1 + terms]: loss and terms of the step just run
  Tensor log_;     // f64 [kSlots, 1 + terms]
  std::vector<StepRecord> pending_;
};

}  // namespace retort
