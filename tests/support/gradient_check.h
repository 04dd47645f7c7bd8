// Central differences against backward(), in f64.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "engine/tensor.h"

namespace retort::testing {

struct GradientCheckOptions {
  double step = 1e-5;
  // |numeric - analytic| must stay below tolerance * max(scale, |numeric|, |analytic|).
  double tolerance = 1e-7;
  double scale = 1.0;
  // Elements of the inputs within kink_range of this value are skipped: the function has no derivative there.
  std::optional<double> kink = std::nullopt;
  double kink_range = 1e-3;
  // Per input, at most this many elements are perturbed, evenly spread.
  std::int64_t max_elements = 96;
};

// `function` maps the inputs to a tensor of any shape; it is checked through a fixed random projection of its result.
// Inputs that are not f64 are passed through unchanged. Reports failures through GoogleTest, naming input and element.
void check_gradients(const std::function<Tensor(const std::vector<Tensor>&)>& function, std::vector<Tensor> inputs,
                     const GradientCheckOptions& options = {});

// sum_i w_i y_i with fixed weights w_i in [-1, 1]: a scalar through which any result can be differentiated.
Tensor project(const Tensor& y);

}  // namespace retort::testing
