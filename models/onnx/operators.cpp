#include "models/onnx/operators.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort::onnx {
namespace {

constexpr std::size_t kMany = 1 << 20;
constexpr std::int64_t kNewestOpset = 25;

const std::vector<Operator>& operators() {
  static const std::vector<Operator> table = {
      {"Abs", 1, 1, {}},
      {"Add", 2, 2, {}},
      {"AveragePool",
       1,
       1,
       {"auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"}},
      {"BatchNormalization", 5, 5, {"epsilon", "momentum", "spatial", "training_mode"}, {1, 2, 3, 4}},
      {"Cast", 1, 1, {"saturate", "to"}},
      {"Clip", 1, 3, {"max", "min"}, {1, 2}},
      {"Concat", 1, kMany, {"axis"}},
      {"Constant", 0, 0, {"value", "value_float", "value_floats", "value_int", "value_ints"}},
      {"ConstantOfShape", 1, 1, {"value"}, {0}},
      {"Conv", 2, 3, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}, {1, 2}},
      {"Div", 2, 2, {}},
      {"Dropout", 1, 3, {"ratio", "seed"}, {1, 2}},
      {"Erf", 1, 1, {}},
      {"Exp", 1, 1, {}},
      {"Expand", 2, 2, {}, {1}},
      {"Flatten", 1, 1, {"axis"}},
      {"Floor", 1, 1, {}},
      {"Gather", 2, 2, {"axis"}, {1}},
      {"Gemm", 2, 3, {"alpha", "beta", "transA", "transB"}},
      {"GlobalAveragePool", 1, 1, {}, {}, 1},
      {"GlobalMaxPool", 1, 1, {}, {}, 1},
      {"HardSigmoid", 1, 1, {"alpha", "beta"}, {}, 6},
      {"HardSwish", 1, 1, {}},
      {"Identity", 1, 1, {}},
      {"LeakyRelu", 1, 1, {"alpha"}},
      {"Log", 1, 1, {}},
      {"LogSoftmax", 1, 1, {"axis"}},
      {"MatMul", 2, 2, {}},
      {"Max", 1, kMany, {}},
      {"MaxPool", 1, 1, {"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"}},
      {"Min", 1, kMany, {}},
      {"Mul", 2, 2, {}},
      {"Neg", 1, 1, {}},
      {"PRelu", 2, 2, {}},
      {"Pad", 1, 4, {"mode", "pads", "value"}, {1, 2, 3}},
      {"Pow", 2, 2, {}},
      {"Range", 3, 3, {}, {0, 1, 2}},
      {"Reciprocal", 1, 1, {}},
      {"ReduceL1", 1, 2, {"axes", "keepdims", "noop_with_empty_axes"}, {1}},
      {"ReduceL2", 1, 2, {"axes", "keepdims", "noop_with_empty_axes"}, {1}},
      {"ReduceMean", 1, 2, {"axes", "keepdims", "noop_with_empty_axes"}, {1}},
      {"ReduceSum", 1, 2, {"axes", "keepdims", "noop_with_empty_axes"}, {1}},
      {"ReduceSumSquare", 1, 2, {"axes", "keepdims", "noop_with_empty_axes"}, {1}},
      {"Relu", 1, 1, {}},
      {"Reshape", 2, 2, {"allowzero"}, {1}},
      {"Shape", 1, 1, {"end", "start"}},
      {"Sigmoid", 1, 1, {}},
      {"Slice", 1, 5, {"axes", "ends", "starts"}, {1, 2, 3, 4}},
      {"Softmax", 1, 1, {"axis"}},
      {"Split", 1, 2, {"axis", "num_outputs", "split"}, {1}},
      {"Sqrt", 1, 1, {}},
      {"Squeeze", 1, 2, {"axes"}, {1}},
      {"Sub", 2, 2, {}},
      {"Sum", 1, kMany, {}},
      {"Tanh", 1, 1, {}},
      {"Transpose", 1, 1, {"perm"}},
      {"Unsqueeze", 1, 2, {"axes"}, {1}},
  };
  return table;
}

// "" where the node can be read.
std::string problem_of(const OnnxNode& node, std::int64_t opset) {
  const Operator* op = find_operator(node.op);
  if (op == nullptr) return fmt::format("operator {} is not among those that Retort reads", node.op);
  if (opset < op->oldest_opset) {
    return fmt::format("{} of version {} of ONNX's operators is not read, from {} on it is", node.op, opset,
                       op->oldest_opset);
  }
  if (node.inputs.size() < op->least_inputs || node.inputs.size() > op->most_inputs) {
    return fmt::format("{} with {} inputs is not read", node.op, node.inputs.size());
  }
  if (node.outputs.empty()) return fmt::format("{} without outputs", node.op);
  for (std::size_t k = 0; k < op->least_inputs; ++k) {
    if (node.inputs[k].empty()) return fmt::format("{} lacks its input {}", node.op, k);
  }
  for (const auto& [name, attribute] : node.attributes) {
    if (std::find(op->attributes.begin(), op->attributes.end(), name) == op->attributes.end()) {
      return fmt::format("the attribute {} of {} is not among those that Retort reads", in_quotes(name), node.op);
    }
  }
  return "";
}

}  // namespace

const Operator* find_operator(const std::string& name) {
  const auto found =
      std::find_if(operators().begin(), operators().end(), [&](const Operator& op) { return op.name == name; });
  return found == operators().end() ? nullptr : &*found;
}

std::vector<std::string> operator_names() {
  std::vector<std::string> names;
  for (const Operator& op : operators()) names.push_back(op.name);
  return names;
}

void check_operators(const OnnxGraph& graph) {
  check(graph.opset <= kNewestOpset, "{}: uses version {} of ONNX's operators; versions up to {} are read", graph.path,
        graph.opset, kNewestOpset);
  std::vector<std::string> problems;
  std::size_t count = 0;
  for (const OnnxNode& node : graph.nodes) {
    const std::string problem = problem_of(node, graph.opset);
    if (problem.empty() || ++count > 5) continue;
    problems.push_back(fmt::format("node {}: {}", in_quotes(node.name.empty() ? node.op : node.name), problem));
  }
  if (count == 0) return;
  fail("{}: {}{} (docs/onnx.md)", graph.path, fmt::join(problems, "; "),
       count > 5 ? fmt::format("; and {} nodes more", count - 5) : "");
}

}  // namespace retort::onnx
