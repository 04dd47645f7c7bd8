// A graph compiled for inputs of known shapes: a list of steps, each one kernel call, over numbered slots of memory.
// Compiling happens on the host alone; models/onnx/runner.h runs the result. What depends on no input is computed while
// compiling, whichever operator it is, by the same kernels (models/onnx/execution.h).
//
// Extents are those of the file (images are N, C, H, W there); in memory a value's axes may lie in any order, which its
// strides say. A Transpose, and a Reshape that memory allows, are new extents and strides for the same slot. Feature
// maps of convolutions and pools lie as N, H, W, C.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/onnx_file.h"
#include "kernels/kernels.h"

namespace retort::onnx {

// What a name stands for: a constant, or floating numbers that a run computes.
struct Value {
  OnnxType type = OnnxType::f32;
  Extents dims;
  Extents strides;        // of the axes in memory, which is dense; a constant's are row-major
  OnnxConstant constant;  // or
  int slot = -1;

  std::int64_t numel() const { return element_count(dims, "value"); }
};

struct Slot {
  std::int64_t numel = 0;
  OnnxConstant constant;  // uploaded once for all plans; in the accumulation type with
  bool accumulate = false;
};

// Steps: y and the like are slots. Shapes are those that the kernel sees.
struct ConvolutionStep {
  int x = -1, weight = -1, bias = -1, residual = -1, y = -1;  // bias and residual may be absent
  Shape x_shape, weight_shape, y_shape;
  kernels::Activation act = kernels::Activation::identity;
  kernels::ConvParams params;
};
struct PoolStep {
  bool average = false;
  int x = -1, y = -1;
  Shape x_shape;
  kernels::PoolParams params;
};
struct MeanStep {  // x [outer, reduced, 1, inner] -> y [outer, 1, 1, inner]
  int x = -1, y = -1;
  Shape x_shape;
};
struct MatmulStep {  // several products of the same extents: offsets in a and b, in elements; results follow each other
  int a = -1, b = -1, bias = -1, y = -1;
  bool transpose_a = false, transpose_b = false;
  Shape a_shape, b_shape, y_shape;
  std::vector<std::pair<std::int64_t, std::int64_t>> offsets;
};
struct NormalisationStep {
  int x = -1, gamma = -1, beta = -1, mean = -1, variance = -1, y = -1;
  Shape x_shape;
  double epsilon = 1e-5;
  kernels::Activation act = kernels::Activation::identity;
};
struct ActivationStep {
  int x = -1, y = -1;
  kernels::Activation act = kernels::Activation::relu;
};
struct UnaryStep {
  int x = -1, y = -1;
  kernels::Unary kind = kernels::Unary::sigmoid;
  double alpha = 0, beta = 0;
};
struct ScaleStep {
  int x = -1, y = -1;
  double factor = 1;
};
struct BinaryStep {
  int a = -1, b = -1, y = -1;
  kernels::Binary kind = kernels::Binary::add;
  kernels::Walk walk;
};
struct BlankStep {  // makes y, for others to copy into
  int y = -1;
  bool filled = false;
  double value = 0;
};
struct CopyStep {  // makes y dense in the order of the walk, or copies into it; walk.a are x's strides, walk.b y's
  bool into = false;
  int x = -1, y = -1;
  std::int64_t x_offset = 0, y_offset = 0;
  kernels::Walk walk;
};
struct SoftmaxStep {  // over rows
  bool log = false;
  int x = -1, y = -1;
  Shape shape;
};
using Step = std::variant<ConvolutionStep, PoolStep, MeanStep, MatmulStep, NormalisationStep, ActivationStep, UnaryStep,
                          ScaleStep, BinaryStep, BlankStep, CopyStep, SoftmaxStep>;

struct Plan {
  std::vector<Slot> slots;
  std::vector<Step> steps;
  std::vector<std::vector<int>> last_uses;              // of each step: slots that nothing reads after it
  std::map<std::string, Value> inputs;                  // those that a run must fill
  std::map<std::string, Value> results;                 // those asked for
  std::vector<std::pair<std::string, Value>> computed;  // what steps compute, in order, by name; inputs left out
};

// Constants that were brought into a kernel's layout, shared between plans: the sources (kept alive, so that their
// addresses stay theirs), and what was done to them.
using DerivedConstants = std::map<std::pair<std::vector<OnnxConstant>, std::string>, OnnxConstant>;

struct CompileOptions {
  bool fuse = true;
  std::int64_t largest_value = std::int64_t{1} << 36;     // elements of one result
  std::int64_t largest_constant = std::int64_t{1} << 28;  // elements that folding makes, in all
};

// `inputs` are those of the graph: constants, or extents with strides (slots are given here). `wanted` are names of the
// graph. Throws Error with the node for what cannot be compiled.
Plan compile(const OnnxGraph& graph, const std::map<std::string, Value>& inputs, const std::vector<std::string>& wanted,
             const CompileOptions& options, DerivedConstants& derived);

// Computes once what depends on no input, and leaves the results as initializers.
void fold_constants(OnnxGraph& graph, const CompileOptions& options);

}  // namespace retort::onnx
