// What the rows of the distillation losses share.
#pragma once

#include "engine/ops.h"
#include "tests/operators/operator_table.h"

namespace retort::testing {

using Loss = std::function<Tensor(const Tensor&, const Tensor&)>;
using LossReference = std::function<double(const Array&, const Array&)>;

// A loss of input 0 with the constant input 1, times `factor`: a mean over many elements has small gradients.
inline OperatorCase loss_row(const std::string& name, const Input& x, const Input& target, double factor,
                             const Loss& loss, const LossReference& expected) {
  return {.name = name,
          .inputs = {x, target},
          .apply = [=](const Tensors& in) { return scale(loss(in[0], in[1]), factor); },
          .expected = [=](const Arrays& in) { return scalar(factor * expected(in[0], in[1])); },
          .constant_inputs = {1}};
}

}  // namespace retort::testing
