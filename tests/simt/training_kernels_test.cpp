// The CUDA kernels against the CPU backend, in all lane orders: batch normalisation, rows, losses, optimizers.
#include <cmath>
#include <limits>

#include "tests/simt/device_calls.h"

namespace retort::simt {
namespace {

using kernels::Activation;
using kernels::Backend;
using kernels::kArenaChunk;
using kernels::OptimizerArgs;
using Views = std::vector<View>;

constexpr DType kFloats[] = {DType::f64, DType::f32, DType::bf16};
constexpr Activation kActivations[] = {Activation::identity, Activation::relu, Activation::relu6};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Argument positive(DType type, const Shape& shape) {
  Argument a = input(type, shape);
  for (double& v : a.values) v = 0.2 + std::abs(v);
  return a;
}
Argument scalar(DType type, double value) {
  return input(type, {1}, std::vector<double>{value});
}

class SimtTraining : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtTraining, testing::ValuesIn(kFloats),
                         [](const auto& test) { return name_of(test.param); });

// --- batch normalisation -------------------------------------------------------------------------------------------

// One row; a column; columns that fill no block, several blocks, a pack; rows that need several blocks.
const Shape kMaps[] = {{1, 3}, {37, 1}, {2, 5, 3, 7}, {3, 9, 13, 8}, {2, 17, 11, 40}, {9, 270}, {2, 23, 19, 16}};

TEST_P(SimtTraining, BatchNormTraining) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : kMaps) {
    const Shape c{s.last()};
    for (const Activation act : kActivations) {
      for (const bool residual : {false, true}) {
        expect_same_shifted_too({input(t, s, 2, 1), input(t, s), input(a, c), input(a, c), output(t, s), output(a, c),
                                 output(a, c), updated(a, c), updated(a, c, 0.1, 1), updated(DType::i32, {1}, 0, 3)},
                                [&](Backend& b, const Views& v) {
                                  b.batch_norm_training(v[0], residual ? ConstView(v[1]) : ConstView(), v[2], v[3], 0.1,
                                                        1e-5, act, v[4], v[5], v[6], v[7], v[8], v[9], {});
                                });
      }
    }
  }
}

TEST_P(SimtTraining, BatchNormInference) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : kMaps) {
    const Shape c{s.last()};
    for (const bool residual : {false, true}) {
      expect_same_shifted_too(
          {input(t, s, 2, 1), input(t, s), input(a, c), input(a, c), input(a, c), positive(a, c), output(t, s)},
          [&](Backend& b, const Views& v) {
            b.batch_norm_inference(v[0], residual ? ConstView(v[1]) : ConstView(), v[2], v[3], v[4], v[5], 1e-3,
                                   Activation::relu, v[6], {});
          });
    }
  }
}

TEST_P(SimtTraining, BatchNormBackward) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : kMaps) {
    const Shape c{s.last()};
    for (const Activation act : kActivations) {
      for (const bool batch_statistics : {false, true}) {
        const auto call = [&](bool with_dx, bool with_dresidual, bool in_place) {
          return [=](Backend& b, const Views& v) {
            for (const std::size_t unused : {6, 7}) b.fill(v[unused], 0, {});
            const View dresidual = in_place ? v[2] : with_dresidual ? v[7] : View();
            b.batch_norm_backward(v[0], v[1], v[2], v[3], {}, v[4], v[5], act, batch_statistics,
                                  with_dx ? v[6] : View(), dresidual, v[8], v[9], {});
          };
        };
        // y spans the activations' open range and both ends.
        const std::vector<Argument> arguments{input(t, s),  input(t, s, 4, 3), updated(t, s), input(a, c),
                                              input(a, c),  positive(a, c),    output(t, s),  output(t, s),
                                              output(a, c), output(a, c)};
        // The sums cancel, so rounding counts in units of the terms.
        const Expectation rounding{1e-12, 2e-5, 1e-2};
        expect_same_shifted_too(arguments, call(true, true, false), rounding);
        expect_same(arguments, call(true, false, true), rounding);
        expect_same(arguments, call(true, false, false), rounding);
        expect_same(arguments, call(false, true, false), rounding);
        expect_same(arguments, call(false, false, false), rounding);
      }
    }
  }
}

TEST(SimtBatchNorm, StandsAMeanFarFromZero) {
  constexpr std::int64_t kRows = 4000, kColumns = 12;
  std::vector<double> values = normal_values(kRows * kColumns, 0.5, 3000);
  for (std::int64_t c = 0; c < kColumns; ++c) values[static_cast<std::size_t>(c)] = 0;  // the first row lies far off
  for (double& v : values) v = static_cast<float>(v);
  const Shape s{kRows, kColumns}, c{kColumns};
  const std::vector<double> ones(kColumns, 1), zeros(kColumns, 0);
  const auto invstd = results(simt_device(),
                              {input(DType::f32, s, values), input(DType::f32, c, ones), input(DType::f32, c, zeros),
                               output(DType::f32, s), output(DType::f32, c), output(DType::f32, c),
                               updated(DType::f32, c), updated(DType::f32, c), updated(DType::i32, {1}, 0)},
                              [](Backend& b, const Views& v) {
                                b.batch_norm_training(v[0], {}, v[1], v[2], 1.0, 0, Activation::identity, v[3], v[4],
                                                      v[5], v[6], v[7], v[8], {});
                              })[2];
  for (std::int64_t k = 0; k < kColumns; ++k) {
    double mean = 0, squares = 0;
    for (std::int64_t r = 0; r < kRows; ++r) mean += values[static_cast<std::size_t>(r * kColumns + k)] / kRows;
    for (std::int64_t r = 0; r < kRows; ++r) {
      const double d = values[static_cast<std::size_t>(r * kColumns + k)] - mean;
      squares += d * d / kRows;
    }
    EXPECT_NEAR(invstd[static_cast<std::size_t>(k)] * std::sqrt(squares), 1, 1e-4);
  }
}

// --- rows ----------------------------------------------------------------------------------------------------------

const Shape kMatrices[] = {{1, 1}, {3, 10}, {9, 32}, {17, 100}, {2, 1000}};

TEST_P(SimtTraining, Softmax) {
  const DType t = GetParam();
  for (const Shape& s : kMatrices) {
    for (const double deviation : {1.0, 300.0}) {
      const std::vector<Argument> forward{input(t, s, deviation), output(t, s)};
      expect_same_shifted_too(forward, [](Backend& b, const Views& v) { b.softmax(v[0], v[1], {}); });
      expect_same_shifted_too(forward, [](Backend& b, const Views& v) { b.log_softmax(v[0], v[1], {}); });
    }
    const std::vector<Argument> backward{input(t, s), input(t, s), output(t, s), output(t, s)};
    expect_same_shifted_too(backward, [](Backend& b, const Views& v) {
      b.softmax(v[0], v[2], {});
      b.softmax_backward(v[2], v[1], v[3], {});
    });
    expect_same_shifted_too(
        backward,
        [](Backend& b, const Views& v) {
          b.log_softmax(v[0], v[2], {});
          b.log_softmax_backward(v[2], v[1], v[3], {});
        },
        {1e-13, 1e-5, 2e-2});  // in bf16 the two logarithms may differ by a rounding before they are raised again
  }
}

TEST_P(SimtTraining, L2Normalize) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : kMatrices) {
    for (const double epsilon : {1e-6, 2.0, 50.0}) {  // above some rows' norms
      expect_same_shifted_too({input(t, s), output(t, s), output(a, {s[0]})},
                              [&](Backend& b, const Views& v) { b.l2_normalize(v[0], epsilon, v[1], v[2], {}); });
      expect_same_shifted_too(
          {input(t, s), positive(a, {s[0]}), input(t, s), output(t, s)},
          [&](Backend& b, const Views& v) { b.l2_normalize_backward(v[0], v[1], v[2], epsilon, v[3], {}); });
    }
  }
}

TEST_P(SimtTraining, CrossEntropy) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : kMatrices) {
    for (const double smoothing : {0.0, 0.1}) {
      const Argument labels = indices({s[0]}, static_cast<int>(s[1]));
      const Expectation rounding{1e-13, 1e-5, 1e-2};
      expect_same_shifted_too(
          {input(t, s, 5), labels, output(a, {1}), output(a, {s[0]})},
          [&](Backend& b, const Views& v) { b.cross_entropy(v[0], v[1], smoothing, v[2], v[3], {}); }, rounding);
      expect_same_shifted_too(
          {input(t, s, 5), labels, output(a, {1}), output(a, {s[0]}), scalar(a, 0.7), output(t, s)},
          [&](Backend& b, const Views& v) {
            b.cross_entropy(v[0], v[1], smoothing, v[2], v[3], {});
            b.cross_entropy_backward(v[0], v[1], v[3], v[4], smoothing, v[5], {});
          },
          rounding);
    }
  }
}

TEST(SimtLosses, CrossEntropyStandsLargeLogitsAndShowsNan) {
  const Shape s{3, 4};
  const Argument labels = input(DType::i32, {3}, std::vector<double>{0, 1, 3});
  const Call call = [](Backend& b, const Views& v) { b.cross_entropy(v[0], v[1], 0.1, v[2], v[3], {}); };
  std::vector<double> values{1e4, -1e4, 0, 1e4, 3e4, 3e4, 3e4, 3e4, -1e4, -1e4, -1e4, -1e4};
  expect_same({input(DType::f32, s, values), labels, output(DType::f32, {1}), output(DType::f32, {3})}, call);
  values[5] = kNan;
  expect_same({input(DType::f32, s, values), labels, output(DType::f32, {1}), output(DType::f32, {3})}, call);
}

TEST(SimtLosses, LabelThatIsNoClassGivesNan) {
  const Argument labels = input(DType::i32, {2}, std::vector<double>{0, 4});
  const auto all =
      results(simt_device(), {input(DType::f32, {2, 4}), labels, output(DType::f32, {1}), output(DType::f32, {2})},
              [](Backend& b, const Views& v) { b.cross_entropy(v[0], v[1], 0, v[2], v[3], {}); });
  EXPECT_TRUE(std::isnan(all[0][0]));
}

TEST_P(SimtTraining, Metrics) {
  const DType t = GetParam();
  const auto call = [](Backend& b, const Views& v) { b.accumulate_metrics(v[0], v[1], v[2], {}); };
  for (const Shape& s : {Shape{1, 1}, Shape{3, 10}, Shape{300, 7}, Shape{5, 200}}) {
    std::vector<double> values = normal_values(s.numel(), 2);
    for (double& v : values) v = std::round(v);  // with ties
    if (s[0] >= 3) {
      values[static_cast<std::size_t>(s[1])] = kNan;
      values[static_cast<std::size_t>(2 * s[1])] = kInfinity;
    }
    expect_same_shifted_too({input(t, s, values), indices({s[0]}, static_cast<int>(s[1])), updated(DType::f64, {4})},
                            call, {2e-6, 0, 0});  // per-row terms are taken in A
  }
}

// --- optimizers ----------------------------------------------------------------------------------------------------

struct Rule {
  OptimizerArgs::Rule rule;
  double weight_decay = 0, momentum = 0;
  bool nesterov = false;
  double max_norm = 0;
};

class SimtOptimizer : public testing::TestWithParam<Rule> {};
INSTANTIATE_TEST_SUITE_P(Rules, SimtOptimizer,
                         testing::Values(Rule{OptimizerArgs::Rule::sgd}, Rule{OptimizerArgs::Rule::sgd, 0.1},
                                         Rule{OptimizerArgs::Rule::sgd, 0.1, 0.9},
                                         Rule{OptimizerArgs::Rule::sgd, 0.1, 0.9, true, 3},
                                         Rule{OptimizerArgs::Rule::adam, 0.1},
                                         Rule{OptimizerArgs::Rule::adam, 0, 0, false, 3},
                                         Rule{OptimizerArgs::Rule::adamw, 0.1, 0, false, 1e6}));

TEST_P(SimtOptimizer, ThreeSteps) {
  const Rule& rule = GetParam();
  const bool adam = rule.rule != OptimizerArgs::Rule::sgd;
  for (const DType a : {DType::f64, DType::f32}) {
    for (const std::int64_t chunks : {1, 2, 9}) {
      const Shape n{chunks * kArenaChunk}, tables{chunks};
      std::vector<double> decay_scale, lr_scale;
      for (std::int64_t c = 0; c < chunks; ++c) {
        decay_scale.push_back(c % 2);
        lr_scale.push_back(c % 4 == 3 ? 0 : 1 + 0.5 * static_cast<double>(c));
      }
      Argument m1 = updated(a, n, adam ? 0 : 1), m2 = updated(a, n, 0);
      expect_same(
          {updated(a, n), output(DType::bf16, n), input(a, n), input(a, n), input(a, n), m1, m2,
           input(DType::f32, tables, decay_scale), input(DType::f32, tables, lr_scale), scalar(DType::f64, 0.05),
           scalar(DType::i32, 1), scalar(DType::i32, 2), scalar(DType::i32, 3), scalar(DType::f64, 12.5)},
          [&](Backend& b, const Views& v) {
            OptimizerArgs args;
            args.rule = rule.rule;
            args.parameter = v[0];
            args.shadow = v[1];
            args.moment1 = adam || rule.momentum != 0 ? v[5] : View();
            args.moment2 = adam ? v[6] : View();
            args.decay_scale = v[7];
            args.lr_scale = v[8];
            args.lr = v[9];
            if (rule.max_norm != 0) args.gradient_norm = v[13];
            args.max_norm = rule.max_norm;
            args.weight_decay = rule.weight_decay;
            args.momentum = rule.momentum;
            args.nesterov = rule.nesterov;
            for (std::size_t step = 0; step < 3; ++step) {
              args.gradient = v[2 + step];
              args.step = v[10 + step];
              b.optimizer_step(args, {});
            }
          },
          {1e-14, 1e-6, 8e-3});
    }
  }
}

}  // namespace
}  // namespace retort::simt
