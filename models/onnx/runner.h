// Runs an ONNX graph on a device: compiles it for the shapes that it meets (models/onnx/plan.h), keeps the plans and
// the constants in device memory, and executes. For any graph of the operators that are read, with any number of inputs
// of any rank; models/onnx_model.h makes a classifier of it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "models/onnx/plan.h"

namespace retort::onnx {

struct RunOptions {
  Device device;
  DType dtype = DType::f32;  // of the arithmetic: f64, f32 or bf16
  CompileOptions compile;
};

class Runner {
 public:
  // Checks the operators of all nodes and folds constants; throws Error before anything runs.
  Runner(OnnxGraph graph, RunOptions options);

  const OnnxGraph& graph() const { return graph_; }
  const RunOptions& options() const { return options_; }

  // A plan for a float input that lies in memory as `strides` say, made once for each shape and set of names.
  std::shared_ptr<const Plan> plan_for(const std::string& input, const Extents& dims, const Extents& strides,
                                       const std::vector<std::string>& wanted);
  // The plan's results that are no constants, flat [numel], in memory as the plan's values say.
  std::map<std::string, Tensor> execute(const Plan& plan, const std::map<std::string, Tensor>& inputs,
                                        kernels::Math math);

  // All outputs of the graph for inputs of any rank, row-major. Whole numbers, and floating inputs that an operator
  // needs as constants (or all of them, with `all_constant`), are compiled in.
  std::vector<OnnxArray> run(const std::map<std::string, OnnxArray>& inputs, bool all_constant = false);

 private:
  OnnxGraph graph_;
  RunOptions options_;
  DerivedConstants derived_;
  std::map<std::string, std::shared_ptr<const Plan>> plans_;
  std::map<std::pair<OnnxConstant, bool>, Tensor> constants_;
};

}  // namespace retort::onnx
