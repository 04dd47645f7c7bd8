// The optimizers' rules, step by step, against torch.optim's formulas written out for one parameter at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/backend_arrays.h"

namespace retort {
namespace {

using kernels::kArenaChunk;
using kernels::OptimizerArgs;
using reference::Array;
using test::cpu;
using test::Data;
using test::expect_close;
using test::uniform;
using Rule = OptimizerArgs::Rule;

struct Settings {
  const char* name;
  Rule rule;
  double weight_decay = 0, momentum = 0;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double max_norm = 0;  // 0: no clipping
};

std::ostream& operator<<(std::ostream& out, const Settings& s) {
  return out << s.name;
}

// torch/optim/{sgd,adam,adamw}.py for a single number.
struct ScalarOptimizer {
  const Settings& s;
  double moment1 = 0, moment2 = 0;

  double step(double p, double gradient, double lr, double weight_decay, int number) {
    double g = gradient;
    if (s.rule == Rule::sgd) {
      g += weight_decay * p;
      if (s.momentum != 0) {
        moment1 = number == 1 ? g : s.momentum * moment1 + g;
        g = s.nesterov ? g + s.momentum * moment1 : moment1;
      }
      return p - lr * g;
    }
    if (s.rule == Rule::adamw) {
      p *= 1 - lr * weight_decay;
    } else {
      g += weight_decay * p;
    }
    moment1 = s.beta1 * moment1 + (1 - s.beta1) * g;
    moment2 = s.beta2 * moment2 + (1 - s.beta2) * g * g;
    const double correction1 = 1 - std::pow(s.beta1, number), correction2 = 1 - std::pow(s.beta2, number);
    return p - lr / correction1 * moment1 / (std::sqrt(moment2) / std::sqrt(correction2) + s.epsilon);
  }
};

class Optimizer : public ::testing::TestWithParam<Settings> {};
INSTANTIATE_TEST_SUITE_P(CpuKernels, Optimizer,
                         ::testing::Values(Settings{"plain", Rule::sgd}, Settings{"decay", Rule::sgd, 5e-4},
                                           Settings{"momentum", Rule::sgd, 5e-4, 0.9},
                                           Settings{"nesterov", Rule::sgd, 5e-4, 0.9, true},
                                           Settings{"clipped", Rule::sgd, 5e-4, 0.9, true, 0, 0, 0, 1.5},
                                           Settings{"adam", Rule::adam},
                                           Settings{"adam_decay", Rule::adam, 1e-2, 0, false, 0.8, 0.99, 1e-3},
                                           Settings{"adamw", Rule::adamw, 5e-2},
                                           Settings{"adamw_clipped", Rule::adamw, 5e-2, 0, false, 0.9, 0.999, 1e-8, 2}),
                         [](const auto& p) { return std::string(p.param.name); });

constexpr int kSteps = 20;

// Three chunks: one as it is, one without decay at twice the rate, one frozen.
void compare(const Settings& s, DType type, double tolerance) {
  const Shape shape{3 * kArenaChunk};
  const Array decay_factors(Shape{3}, {1, 0, 0.5}), lr_factors(Shape{3}, {1, 2, 0});
  const Data decay_scale(DType::f32, decay_factors), lr_scale(DType::f32, lr_factors);
  const bool with_velocity = s.rule != Rule::sgd || s.momentum != 0;
  // SGD's velocity needs no initial value (the array is full of NaN); Adam's moments begin at zero.
  Data parameter(type, uniform(shape, -1, 1, 40)), moment1(type, shape), moment2(type, Array(shape)),
      lr(DType::f64, Shape{1});
  if (s.rule != Rule::sgd) moment1 = moment2;
  Data step(DType::i32, Shape{1}), norm(DType::f64, Shape{1}), shadow(DType::bf16, shape);
  Array expected = parameter.array();
  std::vector<ScalarOptimizer> scalar(static_cast<std::size_t>(shape.numel()), ScalarOptimizer{s});

  for (int number = 1; number <= kSteps; ++number) {
    // Every third step has a small gradient: the clip factor must stay at 1 there.
    const double size = number % 3 == 0 ? 0.01 : 1;
    const Data gradient(type, uniform(shape, -size, size, static_cast<std::uint64_t>(100 + number)));
    lr.set(0, 0.1 / number);
    step.set(0, number);
    OptimizerArgs args;
    args.rule = s.rule;
    args.parameter = parameter;
    args.shadow = shadow;
    args.gradient = gradient;
    if (with_velocity) args.moment1 = moment1;
    if (s.rule != Rule::sgd) args.moment2 = moment2;
    args.decay_scale = decay_scale;
    args.lr_scale = lr_scale;
    args.lr = lr;
    args.step = step;
    double clip = 1;
    if (s.max_norm != 0) {
      cpu().norm(gradient, norm, {});
      args.gradient_norm = norm;
      args.max_norm = s.max_norm;
      clip = std::min(1.0, s.max_norm / (reference::norm(gradient.array()) + 1e-6));
      ASSERT_EQ(clip == 1, number % 3 == 0);
    }
    args.weight_decay = s.weight_decay;
    args.momentum = s.momentum;
    args.nesterov = s.nesterov;
    args.beta1 = s.beta1;
    args.beta2 = s.beta2;
    args.epsilon = s.epsilon;
    cpu().optimizer_step(args, {});
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      const std::int64_t chunk = i / kArenaChunk;
      expected[i] =
          scalar[static_cast<std::size_t>(i)].step(expected[i], gradient.get(i) * clip, lr.get(0) * lr_factors[chunk],
                                                   s.weight_decay * decay_factors[chunk], number);
    }
    SCOPED_TRACE(number);
    expect_close(parameter, expected, tolerance);
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      ASSERT_EQ(shadow.get(i), static_cast<double>(bf16(static_cast<float>(parameter.get(i)))));
    }
  }
  const Array start = Data(type, uniform(shape, -1, 1, 40)).array();
  for (std::int64_t i = 2 * kArenaChunk; i < shape.numel(); ++i)
    ASSERT_EQ(parameter.get(i), start[i]) << "frozen " << i;
}

TEST_P(Optimizer, FollowsTorchInF64) {
  compare(GetParam(), DType::f64, 1e-14);
}
TEST_P(Optimizer, FollowsTorchInF32) {
  compare(GetParam(), DType::f32, 2e-6);
}

}  // namespace
}  // namespace retort
