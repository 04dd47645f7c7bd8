#include "models/onnx/execution.h"

#include <algorithm>
#include <utility>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "engine/ops/frozen.h"
#include "engine/stream.h"
#include "engine/trace.h"
#include "models/onnx/arrays.h"
#include "models/onnx/compiler.h"

namespace retort::onnx {
namespace {

class Execution {
 public:
  Execution(std::vector<Tensor>& slots, const Plan& plan, const Machine& machine)
      : slots_(slots), plan_(plan), math_(machine.math), dtype_(machine.dtype), device_(machine.device) {}

  void operator()(const ConvolutionStep& s) {
    kernels::ConvParams params = s.params;
    params.math = math_;
    set(s.y, conv2d_inference(at(s.x, s.x_shape), at(s.weight, s.weight_shape), optional(s.bias),
                              s.residual < 0 ? Tensor() : at(s.residual, s.y_shape), s.act, params));
  }
  void operator()(const PoolStep& s) {
    const Tensor x = at(s.x, s.x_shape);
    set(s.y, s.average ? average_pool(x, s.params) : max_pool(x, s.params));
  }
  void operator()(const MeanStep& s) { set(s.y, adaptive_average_pool(at(s.x, s.x_shape), 1, 1)); }
  void operator()(const MatmulStep& s) {
    const Tensor a = slot(s.a), b = slot(s.b), bias = optional(s.bias);
    const Tensor y = Tensor::empty({numel(s.y)}, dtype_, device_);
    std::int64_t at_y = 0;
    for (const auto& [at_a, at_b] : s.offsets) {
      y.backend().matmul(a.slice(at_a, s.a_shape), s.transpose_a, b.slice(at_b, s.b_shape), s.transpose_b, bias, math_,
                         y.slice(at_y, s.y_shape).view(), current_stream(device_));
      at_y += s.y_shape.numel();
    }
    set(s.y, y);
  }
  void operator()(const NormalisationStep& s) {
    BatchNormParams params;
    params.epsilon = s.epsilon;
    params.act = s.act;
    set(s.y, batch_norm_inference(at(s.x, s.x_shape), Tensor(), slot(s.gamma), slot(s.beta),
                                  {slot(s.mean), slot(s.variance), Tensor()}, params));
  }
  void operator()(const ActivationStep& s) { set(s.y, activation(slot(s.x), s.act)); }
  void operator()(const UnaryStep& s) { set(s.y, unary(slot(s.x), s.kind, s.alpha, s.beta)); }
  void operator()(const ScaleStep& s) { set(s.y, scale(slot(s.x), s.factor)); }
  void operator()(const BinaryStep& s) { set(s.y, retort::binary(slot(s.a), slot(s.b), s.kind, s.walk, {numel(s.y)})); }
  void operator()(const BlankStep& s) {
    const Tensor y = Tensor::empty({numel(s.y)}, dtype_, device_);
    if (s.filled) y.fill(s.value);
    set(s.y, y);
  }
  void operator()(const CopyStep& s) {
    if (s.into) {
      strided_copy_into(slot(s.x), s.x_offset, slot(s.y), s.y_offset, s.walk);
    } else {
      set(s.y, strided_copy(slot(s.x), s.x_offset, s.walk, {numel(s.y)}));
    }
  }
  void operator()(const SoftmaxStep& s) {
    const Tensor x = at(s.x, s.shape);
    set(s.y, s.log ? retort::log_softmax(x) : retort::softmax(x));
  }

 private:
  std::int64_t numel(int k) const { return plan_.slots[static_cast<std::size_t>(k)].numel; }
  Tensor& slot(int k) { return slots_[static_cast<std::size_t>(k)]; }
  Tensor at(int k, const Shape& shape) { return slot(k).reshaped(shape); }
  Tensor optional(int k) { return k < 0 ? Tensor() : slot(k); }
  void set(int k, const Tensor& y) { slot(k) = y.reshaped({y.numel()}); }

  std::vector<Tensor>& slots_;
  const Plan& plan_;
  kernels::Math math_;
  DType dtype_;
  Device device_;
};

// While it lives nothing is recorded.
struct TracePause {
  TracePause() : paused(std::exchange(trace::active, nullptr)) {}
  ~TracePause() { trace::active = paused; }
  TracePause(const TracePause&) = delete;
  TracePause& operator=(const TracePause&) = delete;

  Trace* paused;
};

}  // namespace

Tensor uploaded(const Slot& slot, const Machine& machine) {
  const DType dtype = slot.accumulate ? accumulation_type(machine.dtype) : machine.dtype;
  return Tensor::from(slot.constant->floats, {slot.constant->numel()}, machine.device).to(dtype);
}

std::map<std::string, Tensor> execute(const Plan& plan, const std::map<std::string, Tensor>& inputs,
                                      const std::function<Tensor(const Slot&)>& constant, const Machine& machine) {
  const autograd::NoGradGuard no_grad;
  std::vector<Tensor> slots(plan.slots.size());
  for (std::size_t k = 0; k < slots.size(); ++k) {
    if (plan.slots[k].constant) slots[k] = constant(plan.slots[k]);
  }
  for (const auto& [name, value] : plan.inputs) {
    slots[static_cast<std::size_t>(value.slot)] = inputs.at(name).reshaped({value.numel()});
  }
  Execution execution(slots, plan, machine);
  for (std::size_t k = 0; k < plan.steps.size(); ++k) {
    std::visit(execution, plan.steps[k]);
    for (const int slot : plan.last_uses[k]) slots[static_cast<std::size_t>(slot)] = Tensor();
  }
  std::map<std::string, Tensor> results;
  for (const auto& [name, value] : plan.results) {
    if (!value.constant) results[name] = slots[static_cast<std::size_t>(value.slot)];
  }
  return results;
}

Tensor tensor_of(const Value& value, const Tensor& flat, const std::vector<int>& order, const Shape& shape) {
  if (has_order(value, order)) return flat.reshaped(shape);
  Extents dims, strides;
  for (const int axis : order) {
    dims.push_back(value.dims[static_cast<std::size_t>(axis)]);
    strides.push_back(value.strides[static_cast<std::size_t>(axis)]);
  }
  return strided_copy(flat, 0, make_walk(dims, strides, strides), shape);
}

OnnxArray array_of(const Value& value, const Tensor& flat) {
  OnnxArray array = make_array(value.type, value.dims);
  const std::vector<int> order = plain_order(value.dims.size());
  const std::vector<double> numbers = tensor_of(value, flat, order, {array.numel()}).to_doubles();
  std::transform(numbers.begin(), numbers.end(), array.floats.begin(), [](double v) { return static_cast<float>(v); });
  return array;
}

std::map<std::string, OnnxConstant> evaluate(const Plan& plan) {
  const TracePause pause;
  const Machine host{{}, DType::f64, kernels::Math::strict};
  const auto computed = execute(
      plan, {}, [&](const Slot& slot) { return uploaded(slot, host); }, host);
  std::map<std::string, OnnxConstant> results;
  for (const auto& [name, value] : plan.results) {
    results[name] =
        value.constant ? value.constant : std::make_shared<const OnnxArray>(array_of(value, computed.at(name)));
  }
  return results;
}

}  // namespace retort::onnx
