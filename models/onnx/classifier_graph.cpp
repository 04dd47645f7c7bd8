#include "models/onnx/classifier_graph.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort::onnx {
namespace {

const OnnxNode* maker_of(const OnnxGraph& graph, const std::string& name) {
  for (const OnnxNode& node : graph.nodes) {
    if (std::find(node.outputs.begin(), node.outputs.end(), name) != node.outputs.end()) return &node;
  }
  return nullptr;
}

bool is_one_of(const std::string& op, std::initializer_list<const char*> ops) {
  return std::any_of(ops.begin(), ops.end(), [&](const char* other) { return op == other; });
}

// The same numbers in the same order, but for a Transpose.
bool moves_only(const OnnxNode& node) {
  return is_one_of(node.op, {"Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"});
}

bool normalises(const OnnxNode& node) {
  return is_one_of(node.op, {"Softmax", "LogSoftmax", "Sigmoid"});
}

// What may be done to the result of a normalisation without changing what its logits are.
bool follows(const OnnxNode& node, const OnnxNode& normalisation) {
  return node.op == "Clip" || node.op == (normalisation.op == "LogSoftmax" ? "Exp" : "Log");
}

// Whoever reads the node's result reads its input from now on; their shapes are the same.
void leave_out(OnnxGraph& graph, const OnnxNode& node, std::string& result) {
  const std::string from = node.outputs[0], to = node.inputs[0];
  if (result == from) result = to;
  for (OnnxNode& other : graph.nodes) std::replace(other.inputs.begin(), other.inputs.end(), from, to);
}

void keep_what_makes(OnnxGraph& graph, const std::string& result) {
  std::set<std::string> needed{result};
  std::vector<OnnxNode> kept;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (std::none_of(node->outputs.begin(), node->outputs.end(),
                     [&](const std::string& name) { return !name.empty() && needed.count(name) != 0; })) {
      continue;
    }
    needed.insert(node->inputs.begin(), node->inputs.end());
    kept.push_back(std::move(*node));
  }
  std::reverse(kept.begin(), kept.end());
  graph.nodes = std::move(kept);
  std::erase_if(graph.initializers, [&](const auto& entry) { return needed.count(entry.first) == 0; });
  std::erase_if(graph.inputs, [&](const OnnxValueInfo& input) { return needed.count(input.name) == 0; });
  OnnxValueInfo output;
  output.name = result;
  graph.outputs = {output};
}

// Who reads a value in the end, past what only makes constants of constants.
struct Use {
  const OnnxNode* node = nullptr;
  std::size_t input = 0;
};

class Weights {
 public:
  explicit Weights(const OnnxGraph& graph) : graph_(graph) {
    std::set<std::string> constants;
    for (const auto& [name, array] : graph.initializers) constants.insert(name);
    for (const OnnxNode& node : graph.nodes) {
      const bool constant = std::all_of(node.inputs.begin(), node.inputs.end(), [&](const std::string& name) {
        return name.empty() || constants.count(name) != 0;
      });
      if (!constant) continue;
      folded_.insert(&node);
      constants.insert(node.outputs.begin(), node.outputs.end());
    }
    for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
      for (std::size_t k = 0; k < node->inputs.size(); ++k) {
        direct_[node->inputs[k]] = {&*node, k};
        const auto later = folded_.count(&*node) != 0 ? uses_.find(node->outputs[0]) : uses_.end();
        uses_[node->inputs[k]] = later != uses_.end() ? later->second : Use{&*node, k};
      }
    }
  }

  void add(const std::string& name, const OnnxArray& array, ParameterStore& store) const;

 private:
  // Shifts and statistics that an operator on weights was given because it must have some.
  bool fills_a_place(const std::string& name, const OnnxArray& array) const {
    const Use& use = direct_.at(name);
    return folded_.count(use.node) != 0 && use.node->op == "BatchNormalization" && use.input >= 2 &&
           std::all_of(array.floats.begin(), array.floats.end(), [&](float v) { return v == array.floats[0]; });
  }

  const OnnxGraph& graph_;
  std::set<const OnnxNode*> folded_;
  std::map<std::string, Use> direct_, uses_;
};

ParameterKind kind_of(const Use& use, const OnnxArray& array) {
  if (use.node->op == "Conv" && use.input == 1 && array.dims.size() == 4) return ParameterKind::conv_weight;
  if (use.node->op == "BatchNormalization" && use.input == 1) return ParameterKind::norm_scale;
  if (use.node->op == "BatchNormalization" && use.input == 2) return ParameterKind::norm_shift;
  return array.dims.size() >= 2 ? ParameterKind::linear_weight : ParameterKind::bias;
}

Shape memory_shape(const Extents& d, ParameterKind kind, std::int64_t numel) {
  if (kind == ParameterKind::conv_weight) return {d[0], d[2], d[3], d[1]};
  switch (d.size()) {
    case 1:
      return {d[0]};
    case 2:
      return {d[0], d[1]};
    case 3:
      return {d[0], d[1], d[2]};
    case 4:
      return {d[0], d[1], d[2], d[3]};
    default:
      return {numel};
  }
}

void check_finite(const OnnxGraph& graph, const std::string& name, const OnnxArray& array) {
  check(std::all_of(array.floats.begin(), array.floats.end(), [](float v) { return std::isfinite(v); }),
        "{}: {} holds NaN or infinity; the network is of no use", graph.path, in_quotes(name));
}

// Elsewhere infinity is a bound or a filling.
bool computes_with_weights(const OnnxNode& node) {
  return is_one_of(node.op, {"Conv", "Gemm", "MatMul", "BatchNormalization"});
}

void Weights::add(const std::string& name, const OnnxArray& array, ParameterStore& store) const {
  const auto use = uses_.find(name);
  if (use == uses_.end() || !is_floating(array.type) || array.dims.empty() || array.numel() == 0) return;
  const bool initializer = graph_.initializers.count(name) != 0;
  if (initializer || computes_with_weights(*use->second.node)) check_finite(graph_, name, array);
  if (fills_a_place(name, array)) return;
  const ParameterKind kind = kind_of(use->second, array);
  const Shape shape = memory_shape(array.dims, kind, array.numel());
  if (use->second.node->op == "BatchNormalization" && use->second.input >= 3) {
    store.buffer(name, shape, DType::f32, 0);
  } else {
    store.parameter(name, shape, kind, Initializer::constant(0))->frozen = true;
  }
}

}  // namespace

Head cut_to_logits(OnnxGraph& graph) {
  Head head;
  const auto output = std::find_if(graph.outputs.begin(), graph.outputs.end(),
                                   [](const OnnxValueInfo& info) { return is_floating(info.type); });
  head.logits = (output == graph.outputs.end() ? graph.outputs.front() : *output).name;
  if (head.logits != graph.outputs.front().name) head.note = "its logits are the output " + in_quotes(head.logits);
  keep_what_makes(graph, head.logits);

  std::vector<const OnnxNode*> behind;  // what computes something of the logits at most, the last first
  for (const OnnxNode* node = maker_of(graph, head.logits); node != nullptr;) {
    const bool last = !moves_only(*node) && !normalises(*node) && !is_one_of(node->op, {"Log", "Exp", "Clip"});
    if (last || node->inputs.empty() || node->inputs[0].empty()) break;
    behind.push_back(node);
    node = maker_of(graph, node->inputs[0]);
  }
  // The normalisation that is nearest to the logits counts, and with it goes all that was computed of its result.
  const auto first = std::find_if(behind.rbegin(), behind.rend(), [](const OnnxNode* n) { return normalises(*n); });
  if (first == behind.rend()) return head;
  const OnnxNode& normalisation = **first;
  std::vector<const OnnxNode*> computing;
  std::copy_if(first, behind.rend(), std::back_inserter(computing), [](const OnnxNode* n) { return !moves_only(*n); });
  const bool known = std::all_of(computing.begin(), computing.end(), [&](const OnnxNode* node) {
    return normalises(*node) || follows(*node, normalisation);
  });
  if (!known) return head;
  for (const OnnxNode* node : computing) leave_out(graph, *node, head.logits);
  head.note += head.note.empty() ? "" : "; ";
  head.note += "it ends in a " + normalisation.op + ", whose input are the logits";
  keep_what_makes(graph, head.logits);
  return head;
}

void register_weights(const OnnxGraph& graph, ParameterStore& store) {
  const Weights weights(graph);
  for (const auto& [name, array] : graph.initializers) weights.add(name, *array, store);
  for (const OnnxNode& node : graph.nodes) {
    if (node.op != "Constant" || node.attributes.empty()) continue;
    const OnnxAttribute& value = node.attributes.begin()->second;
    if (value.kind == OnnxAttribute::Kind::array) weights.add(node.outputs[0], *value.array, store);
  }
}

void check_folded(const OnnxGraph& graph) {
  for (const OnnxNode& node : graph.nodes) {
    if (!computes_with_weights(node)) continue;
    for (const std::string& name : node.inputs) {
      const auto array = graph.initializers.find(name);
      if (array != graph.initializers.end()) check_finite(graph, name, *array->second);
    }
  }
}

}  // namespace retort::onnx
