#include "tests/support/gradient_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "kernels/philox.h"

namespace retort::testing {

Tensor project(const Tensor& y) {
  std::vector<double> weights(static_cast<std::size_t>(y.numel()));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Philox4 random = random_block(7, 0, 0, 0, static_cast<std::uint32_t>(i));
    weights[i] = std::round(128.0 * uniform_of(random.v[0]) - 64.0) / 64.0;  // exact in bf16 too
  }
  const Tensor w = Tensor::from(weights, {y.numel(), 1}).to(y.dtype()).to(y.device());
  return reshape(matmul(reshape(y, {1, y.numel()}), w, false, false, Math::strict), {1});
}

void check_gradients(const std::function<Tensor(const std::vector<Tensor>&)>& function, std::vector<Tensor> inputs,
                     const GradientCheckOptions& options) {
  const auto differentiable = [](const Tensor& t) { return t.dtype() == DType::f64; };
  for (Tensor& input : inputs) {
    if (differentiable(input)) input.set_requires_grad();
  }
  project(function(inputs)).backward();

  const auto value_with = [&](std::size_t which, const std::vector<double>& values) {
    const autograd::NoGradGuard no_grad;
    std::vector<Tensor> changed = inputs;
    changed[which] = Tensor::from(values, inputs[which].shape(), inputs[which].device());
    return project(function(changed)).item();
  };
  int checked = 0;
  for (std::size_t which = 0; which < inputs.size(); ++which) {
    if (!differentiable(inputs[which])) continue;
    const Tensor gradient = inputs[which].grad();
    ASSERT_TRUE(gradient.defined()) << "input " << which << " received no gradient";
    const std::vector<double> analytic = gradient.to_doubles();
    std::vector<double> values = inputs[which].to_host<double>();
    const auto count = static_cast<std::int64_t>(values.size());
    const std::int64_t stride = std::max<std::int64_t>(1, count / options.max_elements);
    for (std::int64_t e = 0; e < count; e += stride) {
      const auto i = static_cast<std::size_t>(e);
      const double original = values[i];
      if (options.kink && std::abs(original - *options.kink) < options.kink_range) continue;
      values[i] = original + options.step;
      const double above = value_with(which, values);
      values[i] = original - options.step;
      const double below = value_with(which, values);
      values[i] = original;
      const double numeric = (above - below) / (2 * options.step);
      const double bound = options.tolerance * std::max({options.scale, std::abs(numeric), std::abs(analytic[i])});
      ASSERT_NEAR(numeric, analytic[i], bound) << "input " << which << ", element " << i << " of "
                                               << inputs[which].shape().to_string() << ", value " << original;
      ++checked;
    }
  }
  ASSERT_GT(checked, 0) << "every element was skipped";
}

}  // namespace retort::testing
