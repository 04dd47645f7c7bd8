// One step of all networks in training: gather and augment the batch, the teachers forward, and for each network
// forward, losses, backward, clip, optimizer, metrics.
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

// What a step trains.
struct TrainedNetwork {
  Model& model;
  Objective& objective;
  std::vector<Optimizer*> optimizers;  // of the network's parameters, and of the objective's parts where it has any
  std::uint64_t seed = 0;              // of its dropout
};

// What one network did in a step.
struct StepRecord {
  double lr = 0;
  double loss = 0;
  std::vector<double> terms = {};  // unweighted, in the order of Objective::names()
  std::int64_t nonfinite = 0;      // logits that were NaN or infinite, in this step and all before it
};

struct StepRecords {
  std::int64_t step = 0;  // number of the step, from 1
  std::int64_t samples = 0;
  std::vector<StepRecord> networks;  // in the constructor's order
};

struct StepOptions {
  kernels::AugmentParams augment;
  DType dtype = DType::f32;  // of the input and the activations
  Math math = Math::standard;
};

class TrainingStep {
 public:
  // All references must outlive the step. Parameters, data, optimizers and teachers share one device; `teachers` is
  // null where nothing is distilled.
  TrainingStep(std::vector<TrainedNetwork> networks, const Teachers* teachers, const DeviceData& data,
               StepOptions options);

  // Queues one step on the samples `batch`, each network at its learning rate; `epoch` counts from 0.
  void run(std::span<const std::int32_t> batch, int epoch, std::span<const double> lr);
  // True when drain() must be called before the next run().
  bool full() const { return pending_.size() == kSlots; }
  // Waits for the device; the records of all steps since the last call, in order.
  std::vector<StepRecords> drain();

  // For the message that stops a run: the first tensor of a network with a NaN or infinity - a parameter, a buffer, the
  // input, or a feature map of another forward pass on the batch last run. Waits for the device.
  std::string first_nonfinite(std::size_t network) const;

  // Of the batch last run, at the weights after it: the norm of the gradient that each term of the objective
  // contributes to the network's parameters, by its weight. One forward and backward pass a term; running statistics
  // stay as they are. Waits for the device.
  std::vector<double> gradient_norms(std::size_t network) const;

  // f64 [4] of a network, see accumulate_metrics: sums over the batches since the last fill(0).
  const Tensor& metrics(std::size_t network) const { return metrics_.at(network); }

 private:
  static constexpr std::size_t kSlots = 64;

  // A step's work differs by batch size (an epoch's last may be smaller) and by the teacher that was drawn.
  using SlotKey = std::pair<std::size_t, int>;
  struct Slot {
    std::int64_t runs = 0;
    std::unique_ptr<kernels::Graph> graph;
  };

  void work(const BatchBuffers& buffers, int drawn);
  ForwardMode mode_for(const BatchBuffers& buffers, const TrainedNetwork& network) const;

  std::vector<TrainedNetwork> networks_;
  const Teachers* teachers_;
  DeviceData data_;
  StepOptions options_;
  std::map<std::size_t, BatchBuffers> buffers_;  // by batch size
  std::map<SlotKey, Slot> slots_;
  SlotKey last_{0, 0};
  std::vector<Tensor> metrics_, nonfinite_;
  Tensor record_;  // f64: loss, terms and nonfinite of the step just run, network by network
  Tensor log_;     // f64 [kSlots, the same]
  std::vector<StepRecords> pending_;
};

}  // namespace retort
