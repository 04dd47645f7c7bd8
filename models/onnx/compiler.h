// The compiler's workshop: what the lowerings of the operators (lower_*.cpp) share. Not part of the public interface.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/error.h"
#include "models/onnx/arrays.h"
#include "models/onnx/plan.h"

namespace retort::onnx {

class Compiler {
 public:
  Compiler(const OnnxGraph& graph, const CompileOptions& options, DerivedConstants& derived);

  Plan compile(const std::map<std::string, Value>& inputs, const std::vector<std::string>& wanted);
  // The results of the nodes that depend on no input; `folded` tells which nodes these are.
  std::map<std::string, OnnxConstant> fold(std::vector<bool>& folded);

  // --- nodes -----------------------------------------------------------------------------------------------
  std::int64_t opset() const { return graph_.opset; }
  const CompileOptions& options() const { return options_; }
  bool has_input(const OnnxNode& node, std::size_t k) const {
    return k < node.inputs.size() && !node.inputs[k].empty();
  }
  const Value& input(const OnnxNode& node, std::size_t k) const;
  const Value* find(const std::string& name) const;
  void define(const OnnxNode& node, Value value);  // the first output
  void define(const std::string& name, Value value);
  // For outputs that are not made: throws where somebody wants one of them, from the second on.
  void require_unused(const OnnxNode& node) const;
  // The one node that reads `name`, where nothing else needs it; null otherwise, and without fusion.
  const OnnxNode* sole_consumer(const std::string& name) const;
  void absorb(const OnnxNode& node);  // it has been done along with another

  // --- attributes --------------------------------------------------------------------------------------------
  std::int64_t integer(const OnnxNode& node, const std::string& name, std::int64_t fallback) const;
  double real(const OnnxNode& node, const std::string& name, double fallback) const;
  std::string text(const OnnxNode& node, const std::string& name, const std::string& fallback) const;
  const Extents* integers(const OnnxNode& node, const std::string& name) const;  // null where absent
  // Whole numbers from an attribute or, in newer opsets, from a constant input; null where neither is there.
  const Extents* integers(const OnnxNode& node, const std::string& name, std::size_t input) const;
  std::size_t axis(std::int64_t axis, std::size_t rank) const;  // negative ones count from the end

  // --- values ------------------------------------------------------------------------------------------------
  Value constant(OnnxArray array);
  Value constant(OnnxConstant array) const;
  // A new slot, its axes in `order` (the outermost in memory first); nothing fills it yet.
  Value computed(OnnxType type, const Extents& dims, const std::vector<int>& order);
  Value on_device(const Value& x);  // a constant becomes a slot
  int constant_slot(const OnnxConstant& array, bool accumulate);
  OnnxConstant derive(const std::vector<OnnxConstant>& sources, const std::string& what,
                      const std::function<OnnxArray()>& make);
  void add(Step step) { plan_.steps.push_back(std::move(step)); }

  // y[i] = x[offset + sum_k i_k strides_k], strides in x's memory; of a constant on the host.
  Value rearranged(const Value& x, std::int64_t offset, const Extents& dims, const Extents& strides);
  // x itself where its axes lie that way.
  Value in_order(const Value& x, const std::vector<int>& order);
  Value in_row_major(const Value& x);
  Value reshaped(const Value& x, const Extents& dims);
  // Something to put other values into: constant or computed; `value` is what it holds, where that matters.
  Value blank(const Value& like, const Extents& dims, bool constant, const double* value = nullptr);
  void place(Value& y, const Value& x, std::int64_t offset);

  Value unary(const Value& x, kernels::Unary kind, double alpha = 0, double beta = 0);
  Value binary(const Value& a, const Value& b, kernels::Binary kind);
  Value activated(const Value& x, kernels::Activation act);
  Value scaled(const Value& x, double factor);
  Value mean(const Value& x, const std::vector<bool>& reduced);  // the reduced axes keep an extent of 1
  Value padded(const Value& x, const Extents& before, const Extents& after, double value);

 private:
  void lower(const OnnxNode& node);
  // A node whose inputs are constants: its results are constants too, whatever operator it is.
  void evaluate(const OnnxNode& node);
  bool is_constant(const std::string& name) const;
  void spend(std::int64_t elements);

  const OnnxGraph& graph_;
  CompileOptions options_;
  DerivedConstants& derived_;
  Plan plan_;
  std::unordered_map<std::string, Value> values_;
  std::unordered_map<std::string, std::vector<const OnnxNode*>> consumers_;
  std::set<std::string> wanted_;
  std::set<const OnnxNode*> done_;
  std::map<std::pair<const OnnxArray*, bool>, int> constant_slots_;
  std::int64_t spent_ = 0;   // elements of constants made by folding
  bool evaluating_ = false;  // a constant node by itself
};

std::vector<int> plain_order(std::size_t rank);  // 0, 1, 2, ...
bool has_order(const Value& x, const std::vector<int>& order);
// Merges axes that both operands allow; throws Error beyond kernels::Walk::kMaxRank.
kernels::Walk make_walk(const Extents& extents, const Extents& a, const Extents& b);
// What x's strides are when it is read as `dims`: 0 along axes that it is repeated over. Throws where it cannot be.
Extents broadcast_strides(const Value& x, const Extents& dims);
Extents broadcast_dims(const Extents& a, const Extents& b);
inline const std::vector<int> kImageOrder = {0, 2, 3, 1};  // N, C, H, W lying as N, H, W, C

// Of a Clip: -infinity and infinity where there are none.
std::pair<double, double> clip_bounds(const Compiler& c, const OnnxNode& node);

using Lowering = void (*)(Compiler&, const OnnxNode&);
using Lowerings = std::map<std::string, Lowering>;
void add_shape_lowerings(Lowerings& to);
void add_math_lowerings(Lowerings& to);
void add_image_lowerings(Lowerings& to);

}  // namespace retort::onnx
