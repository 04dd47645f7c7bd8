// The distillation losses' rows of the operator table.
#pragma once

#include "engine/ops.h"
#include "tests/operators/operator_table.h"

namespace retort::testing {

void add_feature_losses(std::vector<OperatorCase>& rows);
void add_relation_losses(std::vector<OperatorCase>& rows);

// x in its accumulation type, for the operators that take nothing else.
inline Tensor accumulated(const Tensor& x) {
  return cast(x, x.dtype() == DType::f64 ? DType::f64 : DType::f32);
}

}  // namespace retort::testing
