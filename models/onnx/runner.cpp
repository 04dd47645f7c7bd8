#include "models/onnx/runner.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "engine/ops/frozen.h"
#include "engine/stream.h"
#include "engine/suggest.h"
#include "models/onnx/arrays.h"
#include "models/onnx/compiler.h"
#include "models/onnx/operators.h"

namespace retort::onnx {
namespace {

class Execution {
 public:
  Execution(std::vector<Tensor>& slots, const Plan& plan, kernels::Math math, DType dtype, Device device)
      : slots_(slots), plan_(plan), math_(math), dtype_(dtype), device_(device) {}

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

}  // namespace

Runner::Runner(OnnxGraph graph, RunOptions options) : graph_(std::move(graph)), options_(std::move(options)) {
  check_operators(graph_);
  fold_constants(graph_, options_.compile);
}

std::shared_ptr<const Plan> Runner::plan_for(const std::string& input, const Extents& dims, const Extents& strides,
                                             const std::vector<std::string>& wanted) {
  const std::string key =
      fmt::format("{} {} {}", fmt::join(dims, ","), fmt::join(strides, ","), fmt::join(wanted, "\n"));
  std::shared_ptr<const Plan>& plan = plans_[key];
  if (!plan) {
    Value value;
    value.dims = dims;
    value.strides = strides;
    plan = std::make_shared<const Plan>(compile(graph_, {{input, value}}, wanted, options_.compile, derived_));
  }
  return plan;
}

Tensor Runner::constant(const OnnxConstant& array, bool accumulate) {
  Tensor& tensor = constants_[{array, accumulate}];
  if (!tensor) {
    const DType dtype = accumulate ? accumulation_type(options_.dtype) : options_.dtype;
    tensor = Tensor::from(array->floats, {array->numel()}, options_.device).to(dtype);
  }
  return tensor;
}

std::map<std::string, Tensor> Runner::execute(const Plan& plan, const std::map<std::string, Tensor>& inputs,
                                              kernels::Math math) {
  const autograd::NoGradGuard no_grad;
  std::vector<Tensor> slots(plan.slots.size());
  for (std::size_t k = 0; k < slots.size(); ++k) {
    if (plan.slots[k].constant) slots[k] = constant(plan.slots[k].constant, plan.slots[k].accumulate);
  }
  for (const auto& [name, value] : plan.inputs) {
    const auto given = inputs.find(name);
    check(given != inputs.end() && given->second.numel() == value.numel(), "{}: no input {}, or one of another shape",
          graph_.path, in_quotes(name));
    slots[static_cast<std::size_t>(value.slot)] = given->second.reshaped({value.numel()});
  }
  Execution execution(slots, plan, math, options_.dtype, options_.device);
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

Tensor Runner::tensor_of(const Value& value, const Tensor& flat, const std::vector<int>& order, const Shape& shape) {
  if (has_order(value, order)) return flat.reshaped(shape);
  Extents dims, strides;
  for (const int axis : order) {
    dims.push_back(value.dims[static_cast<std::size_t>(axis)]);
    strides.push_back(value.strides[static_cast<std::size_t>(axis)]);
  }
  return strided_copy(flat, 0, make_walk(dims, strides, strides), shape);
}

std::vector<OnnxArray> Runner::run(const std::map<std::string, OnnxArray>& inputs, bool all_constant) {
  std::set<std::string> fixed;
  for (const OnnxNode& node : graph_.nodes) {
    const Operator* op = find_operator(node.op);
    for (const std::size_t k : op->constants) {
      if (k < node.inputs.size()) fixed.insert(node.inputs[k]);
    }
  }
  std::map<std::string, Value> bound;
  std::map<std::string, Tensor> tensors;
  for (const OnnxValueInfo& info : graph_.inputs) {
    const auto given = inputs.find(info.name);
    check(given != inputs.end(), "{}: no input {}", graph_.path, in_quotes(info.name));
    const OnnxArray& array = given->second;
    Value value;
    value.type = array.type;
    value.dims = array.dims;
    value.strides = row_major_strides(array.dims);
    if (all_constant || !is_floating(array.type) || fixed.count(info.name) != 0) {
      value.constant = std::make_shared<OnnxArray>(array);
    } else {
      tensors[info.name] = Tensor::from(array.floats, {array.numel()}, options_.device).to(options_.dtype);
    }
    bound[info.name] = value;
  }
  std::vector<std::string> wanted;
  for (const OnnxValueInfo& output : graph_.outputs) wanted.push_back(output.name);
  DerivedConstants derived;
  const Plan plan = compile(graph_, bound, wanted, options_.compile, derived);
  const auto results = execute(plan, tensors, kernels::Math::strict);
  std::vector<OnnxArray> outputs;
  for (const std::string& name : wanted) {
    const Value& value = plan.results.at(name);
    if (value.constant) {
      outputs.push_back(*value.constant);
      continue;
    }
    OnnxArray array = make_array(value.type, value.dims);
    const std::vector<int> order = plain_order(value.dims.size());
    const std::vector<double> numbers = tensor_of(value, results.at(name), order, {array.numel()}).to_doubles();
    std::transform(numbers.begin(), numbers.end(), array.floats.begin(),
                   [](double v) { return static_cast<float>(v); });
    outputs.push_back(std::move(array));
  }
  return outputs;
}

}  // namespace retort::onnx
