// Runs the steps of a compiled plan (models/onnx/plan.h), each one a call of an operator.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "models/onnx/plan.h"

namespace retort::onnx {

struct Machine {
  Device device;
  DType dtype = DType::f32;  // of the arithmetic: f64, f32 or bf16
  kernels::Math math = kernels::Math::standard;
};

// A slot's constant on the machine, flat.
Tensor uploaded(const Slot& slot, const Machine& machine);

// The results that are no constants, flat [numel], in memory as the plan's values say. `inputs` are those of the plan,
// by name; `constant` gives what uploaded() does.
std::map<std::string, Tensor> execute(const Plan& plan, const std::map<std::string, Tensor>& inputs,
                                      const std::function<Tensor(const Slot&)>& constant, const Machine& machine);

// A result as a tensor of `shape` with its axes in `order` in memory.
Tensor tensor_of(const Value& value, const Tensor& flat, const std::vector<int>& order, const Shape& shape);
// The same as a row-major array.
OnnxArray array_of(const Value& value, const Tensor& flat);

// What a plan without inputs gives, computed on the host in f64 and rounded to f32 once. No trace records it.
std::map<std::string, OnnxConstant> evaluate(const Plan& plan);

}  // namespace retort::onnx
