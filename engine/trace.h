// A record of what a forward pass did, operator by operator: for exporting a network and for counting its work.
//
//   Trace trace({image});
//   { const TraceGuard guard(trace); logits = model.forward(image, {}).logits; }
//   for (const TraceStep& step : trace.steps()) ...
//
// Every operator of engine/ops that inference may use calls trace::record(); those of training alone do not
// (tests/trace_test.cpp lists them). Nothing is lost in silence: memory that is made while the trace runs is watched,
// so that a value which no recorded operator has produced is an Error as soon as somebody asks where it comes from.
#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tensor.h"

namespace retort {

struct ConvAttributes {  // conv2d, conv2d_inference
  kernels::ConvParams params;
  kernels::Activation act = kernels::Activation::identity;
};
struct BatchNormAttributes {  // batch_norm_inference
  double epsilon = 0;
  kernels::Activation act = kernels::Activation::identity;
};
struct MatmulAttributes {
  bool transpose_a = false, transpose_b = false;
};

// Besides those above: PoolParams of max_pool and average_pool; Activation of activation; the factor of scale, the
// epsilon of l2_normalize and the value of full as double; the axis of concatenate as int. What the result's shape and
// type say (reshape, adaptive_average_pool, cast) is not repeated.
using TraceAttributes = std::variant<std::monostate, ConvAttributes, BatchNormAttributes, MatmulAttributes,
                                     kernels::PoolParams, kernels::Activation, double, int>;

// One call of an operator. Tensors are kept, so that no two of one trace share memory by accident.
struct TraceStep {
  std::string_view op;         // the function's name: "conv2d"; "full" for Tensor::full and Tensor::zeros
  std::vector<Tensor> inputs;  // in the function's order (batch_norm_inference: x, residual, gamma, beta, running mean,
                               // running variance); undefined where an optional one was left out
  Tensor output;
  TraceAttributes attributes;
};

// Where a value comes from.
struct TraceSource {
  enum class Kind : std::uint8_t { given, step, constant };
  Kind kind = Kind::constant;
  std::size_t index = 0;  // of the given tensor or of the step
};

class Trace {
 public:
  // `given`: what the pass is a function of. Make the trace after everything that is constant.
  explicit Trace(std::vector<Tensor> given) : given_(std::move(given)) {}

  const std::vector<TraceStep>& steps() const { return steps_; }
  const std::vector<Tensor>& given() const { return given_; }

  // The source of a value that `user` (an operator's name, for the message) consumes. A constant is memory that was
  // there before the trace began. Throws Error for what was made meanwhile, but not by an operator that records.
  TraceSource source_of(const Tensor& value, std::string_view user) const;
  // source_of() for every input of every step and for `result`, the pass's own; and that the memory of every "full"
  // still holds its value, as nobody may have written to it behind the trace's back. Waits for the device.
  void check_complete(const Tensor& result) const;

  void add(TraceStep step) { steps_.push_back(std::move(step)); }
  void allocated(const void* data, std::size_t bytes);

 private:
  std::vector<Tensor> given_;
  std::vector<TraceStep> steps_;
  std::vector<std::pair<const char*, const char*>> made_;  // memory: first byte, one past the last
};

// Records into `trace` what this thread does while it lives.
class TraceGuard {
 public:
  explicit TraceGuard(Trace& trace);
  ~TraceGuard();
  TraceGuard(const TraceGuard&) = delete;
  TraceGuard& operator=(const TraceGuard&) = delete;

 private:
  Trace* previous_;
};

namespace trace {

inline constinit thread_local Trace* active = nullptr;

void record_now(std::string_view op, const Tensor& output, const std::vector<Tensor>& inputs,
                TraceAttributes attributes);

// For the operators; costs one test where no trace is active.
inline void record(std::string_view op, const Tensor& output, std::initializer_list<const Tensor*> inputs,
                   const TraceAttributes& attributes = {}) {
  if (active == nullptr) return;
  std::vector<Tensor> all;
  for (const Tensor* input : inputs) all.push_back(*input);
  record_now(op, output, all, attributes);
}

}  // namespace trace
}  // namespace retort
