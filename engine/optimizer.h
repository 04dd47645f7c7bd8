// Gradient descent over all parameters of a network in one kernel: SGD with momentum, Adam, AdamW, with PyTorch's
// arithmetic. See kernels::OptimizerArgs for the rules.
//
// A step is advance(lr), which writes the learning rate and the step number to the device, and step(), which only
// queues work on fixed addresses and may therefore be part of a captured graph.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "kernels/kernels.h"

namespace retort {

struct OptimizerOptions {
  using Rule = kernels::OptimizerArgs::Rule;
  Rule rule = Rule::sgd;
  double weight_decay = 0;
  bool decay_all = false;                             // false: convolution and linear weights only
  double momentum = 0;                                // SGD
  bool nesterov = false;                              // SGD
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  // Adam, AdamW
  double clip_grad_norm = 0;                          // 0: off; else gradients are scaled down to this norm
};

class Optimizer {
 public:
  // Names of its arrays in a file begin with this.
  static constexpr const char* kStatePrefix = "optimizer.";

  // The store must be materialized, outlive the optimizer, and have been told which parameters are frozen.
  Optimizer(ParameterStore& parameters, const OptimizerOptions& options);

  // From the next step on: these parameters and their moments stay as they are, all others move. Not for capture; what
  // was captured follows.
  void rest(const std::function<bool(const Parameter&)>& which);

  // Before each step(): one step further, at learning rate `lr`. Not for capture.
  void advance(double lr);
  // Queues the update from the store's gradients, which finish_grad() has completed.
  void step();

  std::int64_t steps() const { return steps_; }  // advance() calls, those before a resumption included
  // f64 [1]: the norm of all gradients at the last step, before clipping; undefined where clipping is off.
  const Tensor& gradient_norm() const { return gradient_norm_; }

  // Moments (one array a parameter and moment) and step number; exact. read_state() throws Error, one line with the
  // file, where it holds the state of another optimizer or network.
  void append_state(std::vector<NamedArray>& arrays) const;
  void read_state(const WeightFile& file);

 private:
  ParameterStore& parameters_;
  OptimizerOptions options_;
  std::int64_t steps_ = 0;
  Tensor moment1_, moment2_;  // undefined where the rule has none
  Tensor decay_scale_, lr_scale_;
  Tensor lr_, step_;
  Tensor gradient_norm_;
};

}  // namespace retort
