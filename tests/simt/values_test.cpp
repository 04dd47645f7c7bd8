// Values and shapes at which faults show that others hide: NaN and infinities through activations and normalisation,
// ties of the rounding, a mean far from zero without an outlier, labels out of range in every row, pitches that are no
// multiple of a word, tails behind whole packs.
#include <cmath>
#include <limits>

#include "kernels/cuda/direct_convolution.h"
#include "tests/simt/device_calls.h"
#include "tests/simt/simt.h"

namespace retort::simt {
namespace {

using kernels::Activation;
using kernels::Backend;
using Views = std::vector<View>;

constexpr DType kFloats[] = {DType::f64, DType::f32, DType::bf16};
constexpr Activation kActivations[] = {Activation::identity, Activation::relu, Activation::relu6};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Both ends of relu6, zeros of both signs and what is no number.
const std::vector<double> kSpecial = {kNan, kInfinity, -kInfinity, 0.0, -0.0, 6.0, 6.5, -1.0, 1.0};

// Normal values with the special ones strewn in, at places of whole packs and of tails.
std::vector<double> with_special(std::int64_t count) {
  std::vector<double> values = normal_values(count, 4);
  for (std::size_t i = 0; i < kSpecial.size() && i * 5 + 2 < values.size(); ++i) {
    values[i * 5 + 2] = kSpecial[i];
    values[values.size() - 1 - i] = kSpecial[i];
  }
  return values;
}
Argument positive(DType type, const Shape& shape) {
  Argument a = input(type, shape);
  for (double& v : a.values) v = 0.2 + std::abs(v);
  return a;
}

double element(const View& view, std::int64_t i) {
  if (view.dtype == DType::f64) return view.as<double>()[i];
  return view.dtype == DType::f32 ? view.as<float>()[i] : static_cast<float>(view.as<bf16>()[i]);
}
void set_element(const View& view, std::int64_t i, double value) {
  if (view.dtype == DType::f64) view.as<double>()[i] = value;
  if (view.dtype == DType::f32) view.as<float>()[i] = static_cast<float>(value);
  if (view.dtype == DType::bf16) view.as<bf16>()[i] = bf16(static_cast<float>(value));
}

class SimtValues : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtValues, testing::ValuesIn(kFloats),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(SimtValues, NoNumbersThroughActivations) {
  const DType t = GetParam();
  const Shape s{131};
  for (const Activation act : kActivations) {
    expect_same_shifted_too({input(t, s, with_special(131)), output(t, s)},
                            [&](Backend& b, const Views& v) { b.activation(v[0], act, v[1], {}); });
    expect_same_shifted_too({input(t, s, with_special(131)), input(t, s, with_special(131)), output(t, s)},
                            [&](Backend& b, const Views& v) { b.activation_backward(v[0], v[1], act, v[2], {}); });
    // The gradient of a closed unit is 0 even where what comes from above is no number.
    std::vector<double> y(131, 1), dy(131, 1);
    for (std::size_t i = 0; i < y.size(); i += 3) y[i] = act == Activation::relu6 && i % 2 == 0 ? 6 : 0;
    for (std::size_t i = 0; i < dy.size(); i += 6) dy[i] = i % 4 == 0 ? kNan : kInfinity;
    expect_same_shifted_too({input(t, s, y), input(t, s, dy), output(t, s)},
                            [&](Backend& b, const Views& v) { b.activation_backward(v[0], v[1], act, v[2], {}); });
  }
}

// What is no number in one channel poisons that one and no other, in the output, the statistics and the gradients.
TEST_P(SimtValues, NoNumbersThroughBatchNorm) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : {Shape{5, 7, 3, 8}, Shape{77, 5}}) {
    const std::int64_t columns = s.last();
    const Shape c{columns};
    for (const double special : {kNan, kInfinity, -kInfinity}) {
      const auto in_channel = [&](std::int64_t channel, double mean) {
        std::vector<double> values = normal_values(s.numel(), 2, mean);
        values[static_cast<std::size_t>(9 * columns + channel)] = special;
        return values;
      };
      for (const Activation act : kActivations) {
        for (const bool of_residual : {false, true}) {
          expect_same({input(t, s, of_residual ? normal_values(s.numel(), 2, 1) : in_channel(2, 1)),
                       input(t, s, of_residual ? in_channel(1, 0) : normal_values(s.numel())), input(a, c), input(a, c),
                       output(t, s), output(a, c), output(a, c), updated(a, c), updated(a, c, 0.1, 1),
                       updated(DType::i32, {1}, 0, 3)},
                      [&](Backend& b, const Views& v) {
                        b.batch_norm_training(v[0], v[1], v[2], v[3], 0.1, 1e-5, act, v[4], v[5], v[6], v[7], v[8],
                                              v[9], {});
                      });
          expect_same({input(t, s, of_residual ? normal_values(s.numel(), 2, 1) : in_channel(2, 1)),
                       input(t, s, of_residual ? in_channel(1, 0) : normal_values(s.numel())), input(a, c), input(a, c),
                       input(a, c), positive(a, c), output(t, s)},
                      [&](Backend& b, const Views& v) {
                        b.batch_norm_inference(v[0], v[1], v[2], v[3], v[4], v[5], 1e-3, act, v[6], {});
                      });
        }
        for (const int where : {0, 1, 2}) {  // x, y or dy
          expect_same({input(t, s, where == 0 ? in_channel(2, 0) : normal_values(s.numel())),
                       input(t, s, where == 1 ? in_channel(2, 3) : normal_values(s.numel(), 4, 3)),
                       input(t, s, where == 2 ? in_channel(2, 0) : normal_values(s.numel())), input(a, c), input(a, c),
                       positive(a, c), output(t, s), output(t, s), output(a, c), output(a, c)},
                      [&](Backend& b, const Views& v) {
                        b.batch_norm_backward(v[0], v[1], v[2], v[3], {}, v[4], v[5], act, true, v[6], v[7], v[8], v[9],
                                              {});
                      },
                      {1e-12, 2e-5, 1e-2});
        }
      }
    }
  }
}

// Against sums in f64 of what f32 can hold. No outlier: the variance is that of the values and not of the distance.
TEST(SimtBatchNormValues, StandsAMeanFarFromZeroInEveryRow) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{4000, 12}, {4001, 5}, {301, 33}}) {
    std::vector<double> values = normal_values(rows * columns, 0.5, 3000);
    for (double& v : values) v = static_cast<float>(v);
    const Shape s{rows, columns}, c{columns};
    const std::vector<double> ones(static_cast<std::size_t>(columns), 1), zeros(static_cast<std::size_t>(columns), 0);
    for (const LaneOrder order : kLaneOrders) {
      set_lane_order(order);
      const auto all = results(simt_device(),
                               {input(DType::f32, s, values), input(DType::f32, c, ones), input(DType::f32, c, zeros),
                                output(DType::f32, s), output(DType::f32, c), output(DType::f32, c),
                                updated(DType::f32, c), updated(DType::f32, c), updated(DType::i32, {1}, 0)},
                               [](Backend& b, const Views& v) {
                                 b.batch_norm_training(v[0], {}, v[1], v[2], 1.0, 0, Activation::identity, v[3], v[4],
                                                       v[5], v[6], v[7], v[8], {});
                               });
      set_lane_order(LaneOrder::forward);
      for (std::int64_t k = 0; k < columns; ++k) {
        const auto at = [&](std::int64_t r) { return values[static_cast<std::size_t>(r * columns + k)]; };
        double mean = 0, squares = 0;
        for (std::int64_t r = 0; r < rows; ++r) mean += at(r) / static_cast<double>(rows);
        for (std::int64_t r = 0; r < rows; ++r) squares += (at(r) - mean) * (at(r) - mean);
        const double variance = squares / static_cast<double>(rows);
        const auto channel = static_cast<std::size_t>(k);
        EXPECT_NEAR(all[1][channel], mean, 1e-3);
        EXPECT_NEAR(all[2][channel] * std::sqrt(variance), 1, 1e-4);
        EXPECT_NEAR(all[4][channel] / (squares / static_cast<double>(rows - 1)), 1, 2e-4);  // running variance
      }
    }
  }
}

// 17.3 rounds down; these round up, tie to the even neighbour either way, and carry into the exponent.
TEST(SimtConversionValues, FillRounds) {
  for (const double value :
       {17.3, 17.07, 1.00390625, 1.01171875, -1.00390625, 255.9, 1e-40, 3.39e38, kInfinity, kNan}) {
    for (const DType t : kFloats) {
      expect_same_shifted_too({output(t, {37})}, [&](Backend& b, const Views& v) { b.fill(v[0], value, {}); },
                              {0, 0, 0});
    }
  }
  for (const double value : {0.0, 7.0, 200.0}) {
    for (const DType t : {DType::i32, DType::u8}) {
      expect_same_shifted_too({output(t, {37})}, [&](Backend& b, const Views& v) { b.fill(v[0], value, {}); },
                              {0, 0, 0});
    }
  }
}

TEST(SimtConversionValues, ConvertRounds) {
  std::vector<double> values = {1.00390625, 1.01171875, -1.00390625, 17.07, 17.3, 255.9,  3.39e38,
                                1e-40,      kNan,       kInfinity,   0.1,   -0.0, -17.07, 65535.5};
  while (values.size() < 67) values.push_back(values[values.size() - 13] * 0.999);
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      expect_same_shifted_too({input(from, {67}, values), output(to, {67})},
                              [](Backend& b, const Views& v) { b.convert(v[0], v[1], {}); }, {0, 0, 0});
    }
  }
  for (const DType to : kFloats) {  // negative integers and large ones
    expect_same_shifted_too(
        {input(DType::i32, {5}, std::vector<double>{-1, -300, 16777217, 2147483647, -2147483648.0}), output(to, {5})},
        [](Backend& b, const Views& v) { b.convert(v[0], v[1], {}); }, {0, 0, 0});
  }
  for (const DType from : kFloats) {  // towards zero
    expect_same_shifted_too(
        {input(from, {5}, std::vector<double>{-1.75, 1.75, -0.5, 2.5, 3.99}), output(DType::i32, {5})},
        [](Backend& b, const Views& v) { b.convert(v[0], v[1], {}); }, {0, 0, 0});
  }
}

TEST(SimtCopyValues, ColumnsThatAreNoMultipleOfAWord) {
  struct Copy {
    std::int64_t x_pitch, out_pitch, columns;
  };
  for (const DType t : {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u8}) {
    for (const std::int64_t unit : {1, 2, 4, 8}) {
      // Pitches that allow the widest word, with columns that do not, and each pitch alone that does not.
      for (const Copy& c : {Copy{32, 32, 16 - unit}, Copy{32, 48, 16 + unit}, Copy{16 + unit, 32, 16},
                            Copy{32, 16 + unit, 16}, Copy{16, 16, 16}}) {
        const std::int64_t rows = 9;
        expect_same_shifted_too(
            {input(t, {rows * c.x_pitch}, 1, 50), updated(t, {rows * c.out_pitch}, 1, 90)},
            [&](Backend& b, const Views& v) { b.copy_rows(v[0], c.x_pitch, v[1], c.out_pitch, rows, c.columns, {}); },
            {0, 0, 0});
      }
    }
  }
}

// In each row in turn, with the other rows' labels valid, and on both sides of the range.
TEST(SimtLabels, OutOfRangeInAnyRow) {
  constexpr std::int64_t kRows = 10, kClasses = 5;
  const std::vector<double> logits = normal_values(kRows * kClasses, 2);
  const Shape s{kRows, kClasses};
  for (std::size_t row = 0; row < kRows; ++row) {
    for (const double bad : {-1.0, 5.0, 2147483647.0, -2147483648.0}) {
      std::vector<double> values(kRows, 1);
      values[row] = bad;
      const Argument labels = input(DType::i32, {kRows}, values);
      const auto ce = results(
          simt_device(), {input(DType::f32, s, logits), labels, output(DType::f32, {1}), output(DType::f32, {kRows})},
          [](Backend& b, const Views& v) { b.cross_entropy(v[0], v[1], 0.1, v[2], v[3], {}); });
      EXPECT_TRUE(std::isnan(ce[0][0])) << "row " << row << ", label " << bad;
      const auto decoupled =
          results(simt_device(),
                  {input(DType::f32, s, logits), input(DType::f32, s, 1.0), labels, output(DType::f32, {1}),
                   output(DType::f32, s)},
                  [](Backend& b, const Views& v) { b.decoupled_loss(v[0], v[1], v[2], 1, 8, 4, v[3], v[4], {}); });
      EXPECT_TRUE(std::isnan(decoupled[0][0])) << "row " << row << ", label " << bad;
      const auto metrics = results(simt_device(), {input(DType::f32, s, logits), labels, updated(DType::f64, {4}, 0)},
                                   [](Backend& b, const Views& v) { b.accumulate_metrics(v[0], v[1], v[2], {}); });
      EXPECT_TRUE(std::isnan(metrics[0][0])) << "row " << row << ", label " << bad;
      EXPECT_EQ(metrics[0][2], kRows - 1) << "row " << row << ", label " << bad;  // all others are among five
      EXPECT_EQ(metrics[0][3], kRows);
    }
  }
}

// A norm that is no number must not leave the parameters as if nothing had happened; one of 0 must leave them.
TEST(SimtOptimizerValues, NormsAtTheEnds) {
  const Shape n{kernels::kArenaChunk};
  for (const DType a : {DType::f64, DType::f32}) {
    for (const double norm : {kNan, kInfinity, 0.0, 2.999999, 3.0, 3.1}) {
      expect_same({updated(a, n), input(a, n), input(DType::f32, {1}, std::vector<double>{1}),
                   input(DType::f64, {1}, std::vector<double>{0.1}), input(DType::i32, {1}, std::vector<double>{1}),
                   input(DType::f64, {1}, std::vector<double>{norm})},
                  [](Backend& b, const Views& v) {
                    kernels::OptimizerArgs args;
                    args.parameter = v[0];
                    args.gradient = v[1];
                    args.decay_scale = args.lr_scale = v[2];
                    args.lr = v[3];
                    args.step = v[4];
                    args.gradient_norm = v[5];
                    args.max_norm = 3;
                    b.optimizer_step(args, {});
                  });
    }
  }
}

// Rows and columns without any spread, beside others.
TEST_P(SimtValues, ConstantRowsAndColumns) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : {Shape{9, 13}, Shape{45, 40}}) {
    std::vector<double> x = normal_values(s.numel()), y = normal_values(s.numel());
    for (std::int64_t c = 0; c < s[1]; ++c) x[static_cast<std::size_t>(2 * s[1] + c)] = 0.125;
    for (std::int64_t r = 0; r < s[0]; ++r) y[static_cast<std::size_t>(r * s[1] + 1)] = -3;
    const Expectation rounding{1e-11, 2e-5, 2e-2};
    expect_same(
        {input(t, s, x), input(t, s), output(t, s), output(a, {s[0]}), output(t, s)},
        [](Backend& b, const Views& v) {
          b.standardize_rows(v[0], 1e-3, v[2], v[3], {});
          b.standardize_rows_backward(v[2], v[3], v[1], 1e-3, v[4], {});
        },
        rounding);
    for (const bool by_columns : {false, true}) {
      expect_same(
          {input(t, s, x), input(t, s, y), output(a, {1}), output(t, s)},
          [&](Backend& b, const Views& v) { b.pearson_loss(v[0], v[1], by_columns, 1e-8, v[2], v[3], {}); }, rounding);
    }
  }
}

// Samples that are all one and the same have no mean distance to divide by.
TEST(SimtRelationValues, NoDistances) {  // among equal samples, and of one to others
  for (const auto& [t, samples] : {std::pair{DType::f64, 6}, {DType::f32, 6}, {DType::f64, 1}, {DType::f32, 1}}) {
    const Shape pairs{samples, samples};
    const std::vector<double> none(static_cast<std::size_t>(samples * samples), 0), some(none.size(), 2);
    for (const auto& [s, teacher] : {std::pair{none, some}, {some, none}, {none, none}}) {
      for (const bool normalize : {true, false}) {
        expect_same({input(t, pairs, s), input(t, pairs, teacher), output(t, {1}), output(t, pairs)},
                    [&](Backend& b, const Views& v) {
                      b.distance_loss(v[0], v[1], {normalize, false, 1e-12}, v[2], v[3], {});
                    });
        expect_same({input(t, pairs, s), input(t, pairs, teacher), output(t, {1}), output(t, pairs)},
                    [](Backend& b, const Views& v) { b.angle_loss(v[0], v[1], 1e-12, v[2], v[3], {}); });
      }
    }
  }
}

// So many channels that the samples go in groups of one.
TEST(SimtRelationValues, NeuronSelectivityInGroups) {
  constexpr std::int64_t kChannels = 2100;
  const std::vector<Argument> arguments{input(DType::f64, {2, kChannels, 1}, 0.3),
                                        input(DType::f64, {2, kChannels, 1}, 0.3), output(DType::f64, {1}),
                                        output(DType::f64, {2, kChannels, 1})};
  const Call call = [](Backend& b, const Views& v) { b.neuron_selectivity(v[0], v[1], v[2], v[3], {}); };
  const auto expected = results(kernels::backend({}), arguments, call),
             actual = results(simt_device(), arguments, call);
  EXPECT_NEAR(actual[0][0], expected[0][0], 1e-12);
  for (std::size_t i = 0; i < expected[1].size(); ++i) ASSERT_NEAR(actual[1][i], expected[1][i], 1e-12) << i;
}

// What follows a convolution where no library does it: with and without each part, packs and single elements.
TEST_P(SimtValues, BiasResidualActivation) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : {Shape{3, 5, 2, 8}, Shape{3, 5, 7, 6}, Shape{2, 3, 3, 5}, Shape{2, 9, 9, 48}}) {
    for (const Activation act : kActivations) {
      for (const bool bias : {false, true}) {
        for (const bool residual : {false, true}) {
          expect_same_shifted_too({input(a, {s.last()}), input(t, s, 3), updated(t, s, 3)},
                                  [&](Backend& b, const Views& v) {
                                    const ConstView of_bias = bias ? ConstView(v[0]) : ConstView();
                                    const ConstView of_residual = residual ? ConstView(v[1]) : ConstView();
                                    if (b.device().is_cuda()) {
                                      kernels::bias_residual_activation({of_bias, of_residual, act}, v[2], {});
                                      return;
                                    }
                                    for (std::int64_t i = 0; i < s.numel(); ++i) {
                                      double sum = element(v[2], i);
                                      if (bias) sum += element(v[0], i % s.last());
                                      if (residual) sum += element(v[1], i);
                                      if (act != Activation::identity && sum < 0) sum = 0;
                                      if (act == Activation::relu6 && sum > 6) sum = 6;
                                      set_element(v[2], i, sum);
                                    }
                                  });
        }
      }
    }
  }
}

}  // namespace
}  // namespace retort::simt
