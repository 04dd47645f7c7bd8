#include "models/onnx/compiler.h"

#include <algorithm>

#include "engine/suggest.h"
#include "models/onnx/execution.h"
#include "models/onnx/operators.h"

namespace retort::onnx {
namespace {

const Lowerings& lowerings() {
  static const Lowerings all = [] {
    Lowerings table;
    add_shape_lowerings(table);
    add_math_lowerings(table);
    add_image_lowerings(table);
    return table;
  }();
  return all;
}

// The slots that a step reads or makes.
std::vector<int> slots_of(const Step& step) {
  return std::visit(
      [](const auto& s) -> std::vector<int> {
        using S = std::decay_t<decltype(s)>;
        if constexpr (std::is_same_v<S, ConvolutionStep>)
          return {s.x, s.weight, s.bias, s.residual, s.y};
        else if constexpr (std::is_same_v<S, MatmulStep>)
          return {s.a, s.b, s.bias, s.y};
        else if constexpr (std::is_same_v<S, NormalisationStep>)
          return {s.x, s.gamma, s.beta, s.mean, s.variance, s.y};
        else if constexpr (std::is_same_v<S, BinaryStep>)
          return {s.a, s.b, s.y};
        else if constexpr (std::is_same_v<S, BlankStep>)
          return {s.y};
        else
          return {s.x, s.y};
      },
      step);
}

void find_last_uses(Plan& plan) {
  std::set<int> kept;
  for (const auto& [name, value] : plan.results) kept.insert(value.slot);
  plan.last_uses.assign(plan.steps.size(), {});
  for (std::size_t k = plan.steps.size(); k-- > 0;) {
    for (const int slot : slots_of(plan.steps[k])) {
      if (slot < 0 || plan.slots[static_cast<std::size_t>(slot)].constant || !kept.insert(slot).second) continue;
      plan.last_uses[k].push_back(slot);
    }
  }
}

}  // namespace

Compiler::Compiler(const OnnxGraph& graph, const CompileOptions& options, DerivedConstants& derived)
    : graph_(graph), options_(options), derived_(derived) {}

Plan Compiler::compile(const std::map<std::string, Value>& inputs, const std::vector<std::string>& wanted) {
  for (const auto& [name, array] : graph_.initializers) values_[name] = constant(array);
  for (const auto& [name, given] : inputs) {
    Value value = given;
    if (!value.constant) {
      element_count(value.dims, graph_.path + ": the input " + in_quotes(name), options_.largest_value);
      value.slot = static_cast<int>(plan_.slots.size());
      plan_.slots.push_back({value.numel(), nullptr, false});
      plan_.inputs[name] = value;
    }
    values_[name] = value;
  }

  // Backwards, what the wanted results need; then how often each of it is read.
  wanted_.insert(wanted.begin(), wanted.end());
  std::set<std::string> needed(wanted_);
  std::vector<const OnnxNode*> order;
  for (auto node = graph_.nodes.rbegin(); node != graph_.nodes.rend(); ++node) {
    if (std::none_of(node->outputs.begin(), node->outputs.end(),
                     [&](const std::string& name) { return !name.empty() && needed.count(name) != 0; })) {
      continue;
    }
    order.push_back(&*node);
    for (const std::string& name : node->inputs) {
      if (name.empty()) continue;
      needed.insert(name);
      consumers_[name].push_back(&*node);
    }
  }
  std::reverse(order.begin(), order.end());
  for (const OnnxNode* node : order) {
    if (done_.count(node) == 0) lower(*node);
  }

  for (const std::string& name : wanted) {
    const Value* value = find(name);
    check(value != nullptr, "{}: has no value {}", graph_.path, in_quotes(name));
    plan_.results[name] = *value;
  }
  find_last_uses(plan_);
  return std::move(plan_);
}

std::map<std::string, OnnxConstant> Compiler::fold(std::vector<bool>& folded) {
  for (const auto& [name, array] : graph_.initializers) values_[name] = constant(array);
  for (const OnnxValueInfo& output : graph_.outputs) wanted_.insert(output.name);
  for (const OnnxNode& node : graph_.nodes) {
    for (const std::string& name : node.inputs) consumers_[name].push_back(&node);
  }
  std::map<std::string, OnnxConstant> results;
  folded.assign(graph_.nodes.size(), false);
  for (std::size_t k = 0; k < graph_.nodes.size(); ++k) {
    const OnnxNode& node = graph_.nodes[k];
    const auto known = [&](const std::string& name) { return name.empty() || is_constant(name); };
    if (!std::all_of(node.inputs.begin(), node.inputs.end(), known)) continue;
    evaluate(node);
    folded[k] = true;
    for (const std::string& name : node.outputs) {
      if (!name.empty() && is_constant(name)) results[name] = find(name)->constant;
    }
  }
  return results;
}

void Compiler::lower(const OnnxNode& node) {
  if (!evaluating_ && std::all_of(node.inputs.begin(), node.inputs.end(),
                                  [&](const std::string& name) { return name.empty() || is_constant(name); })) {
    evaluate(node);
    return;
  }
  const auto lowering = lowerings().find(node.op);
  try {
    check(lowering != lowerings().end(), "operator {} is not among those that Retort reads", node.op);
    const Operator& op = *find_operator(node.op);
    for (const std::size_t k : op.constants) {
      if (!has_input(node, k) || input(node, k).constant) continue;
      fail("its input {} ({}) depends on the network's input; it must be constant", k, in_quotes(node.inputs[k]));
    }
    lowering->second(*this, node);
    done_.insert(&node);
  } catch (const Error& error) {
    fail("{}: {}: {} (docs/onnx.md)", where_of(graph_, node), node.op, error.what());
  }
}

// As a graph of its own, compiled and run at once. What the operators compute on the host stays exact.
void Compiler::evaluate(const OnnxNode& node) {
  OnnxGraph alone;
  alone.path = graph_.path;
  alone.opset = graph_.opset;
  alone.nodes = {node};
  for (const std::string& name : node.inputs) {
    if (!name.empty()) alone.initializers[name] = find(name)->constant;
  }
  std::vector<std::string> read;  // of its results
  for (const std::string& name : node.outputs) {
    const bool is_read = consumers_.count(name) != 0 || wanted_.count(name) != 0;
    if (!name.empty() && is_read) read.push_back(name);
  }
  CompileOptions options = options_;
  options.fuse = false;
  options.largest_value = options.largest_constant - spent_;
  DerivedConstants derived;
  Compiler compiler(alone, options, derived);
  compiler.evaluating_ = true;
  compiler.spent_ = spent_;
  const Plan plan = compiler.compile({}, read);
  spent_ = compiler.spent_;
  for (const auto& [name, result] : onnx::evaluate(plan)) {
    if (!plan.results.at(name).constant) spend(result->numel());
    define(name, constant(result));
  }
  done_.insert(&node);
}

bool Compiler::is_constant(const std::string& name) const {
  const Value* value = find(name);
  return value != nullptr && value->constant;
}

void Compiler::spend(std::int64_t elements) {
  spent_ += elements;
  check(spent_ <= options_.largest_constant, "folding constants makes more than {} numbers", options_.largest_constant);
}

const Value* Compiler::find(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

const Value& Compiler::input(const OnnxNode& node, std::size_t k) const {
  check(has_input(node, k), "lacks its input {}", k);
  const Value* value = find(node.inputs[k]);
  check(value != nullptr, "reads {}, which is not made here", in_quotes(node.inputs[k]));
  return *value;
}

void Compiler::define(const OnnxNode& node, Value value) {
  define(node.outputs[0], std::move(value));
  require_unused(node);
}

void Compiler::define(const std::string& name, Value value) {
  if (name.empty()) return;
  if (!value.constant) plan_.computed.emplace_back(name, value);
  values_[name] = std::move(value);
}

void Compiler::require_unused(const OnnxNode& node) const {
  for (std::size_t k = 1; k < node.outputs.size(); ++k) {
    const std::string& name = node.outputs[k];
    check(name.empty() || (consumers_.count(name) == 0 && wanted_.count(name) == 0),
          "its output {} ({}) is used, and is not made here", k, in_quotes(name));
  }
}

const OnnxNode* Compiler::sole_consumer(const std::string& name) const {
  const auto found = consumers_.find(name);
  const bool sole = options_.fuse && found != consumers_.end() && found->second.size() == 1 && wanted_.count(name) == 0;
  return sole ? found->second[0] : nullptr;
}

void Compiler::absorb(const OnnxNode& node) {
  require_unused(node);
  done_.insert(&node);
}

namespace {
const OnnxAttribute* attribute(const OnnxNode& node, const std::string& name, OnnxAttribute::Kind kind) {
  const auto found = node.attributes.find(name);
  if (found == node.attributes.end()) return nullptr;
  check(found->second.kind == kind, "its attribute {} is of another type than it should be", in_quotes(name));
  return &found->second;
}
}  // namespace

std::int64_t Compiler::integer(const OnnxNode& node, const std::string& name, std::int64_t fallback) const {
  const OnnxAttribute* found = attribute(node, name, OnnxAttribute::Kind::integer);
  return found != nullptr ? found->integer : fallback;
}

double Compiler::real(const OnnxNode& node, const std::string& name, double fallback) const {
  const OnnxAttribute* found = attribute(node, name, OnnxAttribute::Kind::real);
  return found != nullptr ? found->real : fallback;
}

std::string Compiler::text(const OnnxNode& node, const std::string& name, const std::string& fallback) const {
  const OnnxAttribute* found = attribute(node, name, OnnxAttribute::Kind::text);
  return found != nullptr ? found->text : fallback;
}

const Extents* Compiler::integers(const OnnxNode& node, const std::string& name) const {
  const OnnxAttribute* found = attribute(node, name, OnnxAttribute::Kind::integers);
  return found != nullptr ? &found->integers : nullptr;
}

const Extents* Compiler::integers(const OnnxNode& node, const std::string& name, std::size_t k) const {
  if (const Extents* found = integers(node, name)) return found;
  if (!has_input(node, k)) return nullptr;
  const Value& value = input(node, k);
  check(value.constant && !is_floating(value.type) && value.dims.size() <= 1,
        "its {} must be a constant list of whole numbers", name);
  return &value.constant->integers;
}

std::size_t Compiler::axis(std::int64_t axis, std::size_t rank) const {
  const auto count = static_cast<std::int64_t>(rank);
  check(axis >= -count && axis < count, "axis {} of a value of rank {}", axis, rank);
  return static_cast<std::size_t>(axis < 0 ? axis + count : axis);
}

Value Compiler::constant(OnnxArray array) {
  spend(array.numel());
  return constant(std::make_shared<OnnxArray>(std::move(array)));
}

Value Compiler::constant(OnnxConstant array) const {
  Value value;
  value.type = array->type;
  value.dims = array->dims;
  value.strides = row_major_strides(value.dims);
  value.constant = std::move(array);
  return value;
}

Value Compiler::computed(OnnxType type, const Extents& dims, const std::vector<int>& order) {
  Value value;
  value.type = type;
  value.dims = dims;
  const std::int64_t numel = element_count(dims, "its result", options_.largest_value);
  value.strides = dense_strides(dims, order);
  value.slot = static_cast<int>(plan_.slots.size());
  plan_.slots.push_back({numel, nullptr, false});
  return value;
}

int Compiler::constant_slot(const OnnxConstant& array, bool accumulate) {
  check(is_floating(array->type), "{} numbers where floating ones are needed", name_of(array->type));
  const auto [found, added] =
      constant_slots_.emplace(std::pair(array.get(), accumulate), static_cast<int>(plan_.slots.size()));
  if (added) plan_.slots.push_back({array->numel(), array, accumulate});
  return found->second;
}

Value Compiler::on_device(const Value& x) {
  if (!x.constant) return x;
  Value value = x;
  value.slot = constant_slot(x.constant, false);
  value.constant = nullptr;
  return value;
}

OnnxConstant Compiler::derive(const std::vector<OnnxConstant>& sources, const std::string& what,
                              const std::function<OnnxArray()>& make) {
  OnnxConstant& result = derived_[{sources, what}];
  if (!result) {
    OnnxArray array = make();
    spend(array.numel());
    result = std::make_shared<const OnnxArray>(std::move(array));
  }
  return result;
}

Plan compile(const OnnxGraph& graph, const std::map<std::string, Value>& inputs, const std::vector<std::string>& wanted,
             const CompileOptions& options, DerivedConstants& derived) {
  return Compiler(graph, options, derived).compile(inputs, wanted);
}

void fold_constants(OnnxGraph& graph, const CompileOptions& options) {
  DerivedConstants derived;
  std::vector<bool> folded;
  auto results = Compiler(graph, options, derived).fold(folded);
  graph.initializers.merge(results);
  std::vector<OnnxNode> left;
  for (std::size_t k = 0; k < graph.nodes.size(); ++k) {
    if (!folded[k]) left.push_back(std::move(graph.nodes[k]));
  }
  graph.nodes = std::move(left);
}

}  // namespace retort::onnx
