#include "models/onnx/runner.h"

#include <fmt/ranges.h>

#include "engine/suggest.h"
#include "models/onnx/arrays.h"
#include "models/onnx/execution.h"
#include "models/onnx/operators.h"

namespace retort::onnx {

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

std::map<std::string, Tensor> Runner::execute(const Plan& plan, const std::map<std::string, Tensor>& inputs,
                                              kernels::Math math) {
  for (const auto& [name, value] : plan.inputs) {
    const auto given = inputs.find(name);
    check(given != inputs.end() && given->second.numel() == value.numel(), "{}: no input {}, or one of another shape",
          graph_.path, in_quotes(name));
  }
  const Machine machine{options_.device, options_.dtype, math};
  const auto constant = [&](const Slot& slot) {
    Tensor& tensor = constants_[{slot.constant, slot.accumulate}];
    if (!tensor) tensor = uploaded(slot, machine);
    return tensor;
  };
  return onnx::execute(plan, inputs, constant, machine);
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
    outputs.push_back(value.constant ? *value.constant : array_of(value, results.at(name)));
  }
  return outputs;
}

}  // namespace retort::onnx
