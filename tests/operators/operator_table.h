// The operator table: one row a case. From each row operators_test.cpp makes, on every device there is (the CPU; CUDA,
// or the CUDA kernels under SIMT execution): the comparison of the forward with an independent f64 reference in f64,
// f32 and bf16; the gradient check in f64; the comparison of f32 and bf16 gradients with the f64 ones of the CPU.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "tests/support/gradient_check.h"
#include "tests/support/reference.h"

namespace retort::testing {

struct Input {
  enum class Kind { normal, distinct, labels, positive, constant };
  Shape shape;
  Kind kind = Kind::normal;
  double parameter = 1.0;    // normal: standard deviation; labels: their number; constant: the value
  bool accumulated = false;  // kept in the accumulation type (f64 or f32) when the case runs in bf16: BN parameters
  double offset = 0.0;       // added to every value
};

inline Input normal(Shape shape, double deviation = 1.0) {
  return {shape, Input::Kind::normal, deviation};
}
// All values different, at least 0.02 apart: no ties and no kinks for max-pooling.
inline Input distinct(Shape shape) {
  return {shape, Input::Kind::distinct};
}
inline Input labels(std::int64_t rows, int classes) {
  return {{rows}, Input::Kind::labels, static_cast<double>(classes)};
}
inline Input parameter(std::int64_t channels, double offset = 0.0) {
  return {{channels}, Input::Kind::normal, 0.5, true, offset};
}
inline Input positive_parameter(std::int64_t channels) {
  return {{channels}, Input::Kind::positive, 1.0, true};
}

using reference::Array;
using Tensors = std::vector<Tensor>;
using Arrays = std::vector<Array>;
using Apply = std::function<Tensor(const Tensors&)>;
using Reference = std::function<Array(const Arrays&)>;

struct OperatorCase {
  std::string name;
  std::vector<Input> inputs;
  Apply apply;
  Reference expected;
  // Bounds relative to the largest absolute value of the result (at least 1).
  double f64_tolerance = 1e-12;
  double f32_tolerance = 2e-6;
  double bf16_tolerance = 2e-2;
  double f32_gradient_tolerance = 1e-5;
  double bf16_gradient_tolerance = 4e-2;
  GradientCheckOptions gradient = {};
  // Inputs that take part but get no gradient (running statistics, sample numbers).
  std::vector<std::size_t> constant_inputs = {};
  // Without one, asking for a gradient must be an error.
  bool has_backward = true;
};

inline const char* suffix(kernels::Activation act) {
  return act == kernels::Activation::relu ? "_relu" : act == kernels::Activation::relu6 ? "_relu6" : "";
}

inline Array scalar(double value) {
  return Array({1}, value);
}
inline std::vector<std::int32_t> to_ints(const Array& array) {
  return {array.values.begin(), array.values.end()};
}

const std::vector<OperatorCase>& operator_cases();

// Families with files of their own append their rows.
void add_convolutions(std::vector<OperatorCase>& rows);     // convolution_cases.cpp
void add_feature_losses(std::vector<OperatorCase>& rows);   // feature_loss_cases.cpp
void add_frozen(std::vector<OperatorCase>& rows);           // frozen_cases.cpp
void add_logit_losses(std::vector<OperatorCase>& rows);     // logit_loss_cases.cpp
void add_relation_losses(std::vector<OperatorCase>& rows);  // relation_loss_cases.cpp

}  // namespace retort::testing
