// The CPU kernels against the references and on their own: what the operator table, which goes through the engine,
// does not see. Batch normalisation and the optimizers have files of their own.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>

#include "kernels/philox.h"
#include "tests/support/backend_arrays.h"

namespace retort {
namespace {

using kernels::Activation;
using kernels::PoolParams;
using reference::Array;
using test::cpu;
using test::Data;
using test::expect_close;
using test::uniform;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// dx against central differences of `forward`, contracted with the fixed dy.
template <typename Forward>
void expect_gradient(const Array& dx, const Array& x, const Array& dy, const Forward& forward,
                     double tolerance = 1e-7) {
  constexpr double kStep = 1e-5;
  Array probe = x;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const auto objective = [&](double value) {
      probe[i] = value;
      const Array y = forward(probe);
      double total = 0;
      for (std::int64_t j = 0; j < y.numel(); ++j) total += y[j] * dy[j];
      return total;
    };
    const double slope = (objective(x[i] + kStep) - objective(x[i] - kStep)) / (2 * kStep);
    probe[i] = x[i];
    ASSERT_NEAR(dx[i], slope, tolerance * (1 + std::abs(slope))) << "element " << i;
  }
}

class EveryFloat : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(CpuKernels, EveryFloat, ::testing::Values(DType::f64, DType::f32, DType::bf16),
                         [](const auto& p) { return std::string(name_of(p.param)); });

// Sizes below and above the threshold for threads, not multiples of a vector.
TEST_P(EveryFloat, ElementwiseFollowsTheReference) {
  for (const std::int64_t n : {1, 7, 1000, 100003}) {
    const Data a(GetParam(), uniform({n}, -8, 8, 1)), b(GetParam(), uniform({n}, -8, 8, 2));
    const Array a_values = a.array(), b_values = b.array();
    Data y(GetParam(), Shape{n});
    const double tolerance = test::rounding(GetParam());
    cpu().add(a, b, y, {});
    expect_close(y, reference::add(a_values, b_values), tolerance);
    cpu().scale(a, -0.3, y, {});
    expect_close(y, reference::scale(a_values, -0.3), tolerance);
    cpu().square(a, y, {});
    expect_close(y, reference::square(a_values), tolerance);
    Array product = a_values;
    for (std::int64_t i = 0; i < n; ++i) product[i] *= 2 * b_values[i];
    cpu().square_backward(a, b, y, {});
    expect_close(y, product, tolerance);
    cpu().fill(y, 1.5, {});
    expect_close(y, Array(Shape{n}, 1.5), 0);
    for (const auto kind : {Activation::identity, Activation::relu, Activation::relu6}) {
      cpu().activation(a, kind, y, {});
      expect_close(y, reference::activation(a_values, kind), 0);
      Array expected = b_values;
      for (std::int64_t i = 0; i < n; ++i) {
        const double v = a_values[i];
        if (kind != Activation::identity && (v <= 0 || (kind == Activation::relu6 && v >= 6))) expected[i] = 0;
      }
      Data dx(GetParam(), Shape{n});
      cpu().activation_backward(y, b, kind, dx, {});
      expect_close(dx, expected, 0);
    }
  }
}

TEST_P(EveryFloat, InPlaceGivesTheSame) {
  const Data a(GetParam(), uniform({5000}, -8, 8, 1)), b(GetParam(), uniform({5000}, -8, 8, 2));
  Data apart(GetParam(), Shape{5000}), in_place = a;
  cpu().add(a, b, apart, {});
  cpu().add(in_place, b, in_place, {});
  EXPECT_EQ(in_place.bytes, apart.bytes);
  cpu().activation(apart, Activation::relu6, in_place, {});
  cpu().activation(apart, Activation::relu6, apart, {});
  EXPECT_EQ(in_place.bytes, apart.bytes);
  Data gradient = b;
  cpu().activation_backward(apart, b, Activation::relu6, in_place, {});
  cpu().activation_backward(apart, gradient, Activation::relu6, gradient, {});
  EXPECT_EQ(in_place.bytes, gradient.bytes);
}

TEST_P(EveryFloat, ReductionsFollowTheReference) {
  for (const Shape shape :
       {Shape{3, 5}, Shape{1, 2048}, Shape{70000, 3}, Shape{9000, 16}, Shape{5, 700}, Shape{3000, 64}}) {
    const Data x(GetParam(), uniform(shape, -1, 1.5, 3));
    const DType sums = accumulation_type(GetParam());
    Data total(sums, Shape{1}), rows(sums, Shape{shape.last()});
    cpu().sum(x, 0.25, total, {});
    expect_close(total, Array(Shape{1}, 0.25 * reference::sum(x.array())), 4 * test::rounding(sums));
    cpu().sum_rows(x, rows, {});
    // Up to some 200 numbers are added up one by one.
    expect_close(rows, reference::sum_rows(x.array()), 16 * test::rounding(sums), 1);
    Data back(GetParam(), Shape{7});
    cpu().broadcast(total, 2, back, {});
    expect_close(back, Array(Shape{7}, 2 * total.array()[0]), test::rounding(GetParam()));
  }
}

TEST(CpuKernels, NormAddsUpInF64) {
  for (const DType type : {DType::f64, DType::f32}) {
    const Data x(type, uniform({300001}, -1, 1, 4));
    Data y(DType::f64, Shape{1});
    cpu().norm(x, y, {});
    expect_close(y, Array(Shape{1}, reference::norm(x.array())), 1e-13);
  }
}

TEST_P(EveryFloat, NonfiniteElementsAreCountedAndAdded) {
  Array x = uniform({70001}, -1, 1, 5);
  x[0] = kNan;
  x[17] = kInfinity;
  x[40000] = -kInfinity;
  x[70000] = -kNan;
  Data count(DType::i32, Array(Shape{1}, 5));
  cpu().accumulate_nonfinite(Data(GetParam(), x), count, {});
  EXPECT_EQ(count.array()[0], 9);
  Data largest(GetParam(), Shape{8});
  cpu().fill(largest, GetParam() == DType::f64 ? std::numeric_limits<double>::max() : 3.0e38, {});
  cpu().accumulate_nonfinite(largest, count, {});
  EXPECT_EQ(count.array()[0], 9);
}

TEST_P(EveryFloat, ActivationsLetNanThrough) {
  const Data x(GetParam(), Array(Shape{16}, kNan));
  for (const auto kind : {Activation::relu, Activation::relu6}) {
    Data y(GetParam(), Shape{16});
    cpu().activation(x, kind, y, {});
    for (double v : y.array().values) EXPECT_TRUE(std::isnan(v));
  }
}

TEST(CpuKernels, ReciprocalSqrtIsRoundedOnce) {
  for (const DType type : {DType::f64, DType::f32}) {
    const Data x(type, uniform({1000}, 0, 2, 17));
    Data y(type, x.shape);
    cpu().reciprocal_sqrt(x, 1e-5, y, {});
    Array expected = x.array();
    for (double& v : expected.values) v = 1 / std::sqrt(v + 1e-5);
    expect_close(y, expected, test::rounding(type) / 2);
  }
}

TEST(CpuKernels, ConvertGoesFromAnyTypeToAny) {
  const DType all[] = {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u8};
  const Array values(Shape{6}, {0, 1, 2, 100, 128, 255});  // exact in every type
  for (const DType from : all) {
    for (const DType to : all) {
      Data y(to, Shape{6});
      cpu().convert(Data(from, values), y, {});
      expect_close(y, values, 0);
    }
  }
}

TEST(CpuKernels, ConvertRoundsBf16ToNearestEven) {
  // bf16 has 8 significant bits: 1 + 2^-8 lies half way and goes to the even neighbour, 1; 1 + 3 2^-8 to 1 + 2^-6.
  const Data x(DType::f32, Array(Shape{4}, {1 + 0x1p-8, 1 + 3 * 0x1p-8, 1 + 0x1p-8 + 0x1p-20, kNan}));
  Data y(DType::bf16, Shape{4});
  cpu().convert(x, y, {});
  EXPECT_EQ(y.array()[0], 1);
  EXPECT_EQ(y.array()[1], 1 + 0x1p-6);
  EXPECT_EQ(y.array()[2], 1 + 0x1p-7);
  EXPECT_TRUE(std::isnan(y.array()[3]));
}

TEST(CpuKernels, AccumulateAddsAcrossTypes) {
  const DType floating[] = {DType::f64, DType::f32, DType::bf16};
  for (const DType from : floating) {
    for (const DType to : floating) {
      Data y(to, Array(Shape{3}, {1, 2, 3}));
      cpu().accumulate(Data(from, Array(Shape{3}, {0.5, -4, 8})), y, {});
      expect_close(y, Array(Shape{3}, {1.5, -2, 11}), 0);
    }
  }
}

TEST_P(EveryFloat, DropoutFollowsTheContract) {
  const Data x(GetParam(), uniform({3, 5, 7}, 1, 2, 6));
  const std::vector<std::int32_t> ids = {41, 7, 100000};
  const kernels::RandomKey key{0x123456789abcdefull, 1030};
  Data y(GetParam(), x.shape);
  cpu().dropout(x, test::indices(ids), test::indices({3}), 0.3, key, y, {});
  expect_close(y, reference::dropout(x.array(), ids, 3, 0.3, key), 2 * test::rounding(GetParam()));
}

TEST(CpuKernels, DropoutDropsTheRightShareOfElements) {
  for (const double p : {0.0, 0.1, 0.5, 0.9, 1.0}) {
    constexpr std::int64_t kSamples = 64, kSize = 4099;
    std::vector<std::int32_t> ids(kSamples);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(3 * i);
    const Data x(DType::f32, Array(Shape{kSamples, kSize}, 1));
    Data y(DType::f32, x.shape);
    cpu().dropout(x, test::indices(ids), test::indices({0}), p, {9, 1024}, y, {});
    double kept = 0;
    for (double v : y.array().values) {
      ASSERT_TRUE(v == 0 || std::abs(v - 1 / (1 - p)) < 1e-5 / (1 - p));
      kept += v != 0 ? 1 : 0;
    }
    const double n = kSamples * kSize;
    EXPECT_NEAR(kept / n, 1 - p, 5 * std::sqrt(p * (1 - p) / n)) << p;
  }
}

TEST(CpuKernels, DropoutOfASampleDoesNotDependOnItsBatch) {
  constexpr std::int64_t kSize = 1001;
  const Data x(DType::f32, Array(Shape{4, kSize}, 1)), one(DType::f32, Array(Shape{1, kSize}, 1));
  Data batch(DType::f32, x.shape), alone(DType::f32, one.shape), later(DType::f32, one.shape);
  cpu().dropout(x, test::indices({5, 6, 7, 8}), test::indices({2}), 0.5, {1, 1024}, batch, {});
  cpu().dropout(one, test::indices({7}), test::indices({2}), 0.5, {1, 1024}, alone, {});
  cpu().dropout(one, test::indices({7}), test::indices({3}), 0.5, {1, 1024}, later, {});
  const Array in_batch = batch.array();
  const std::vector<double> third(in_batch.values.begin() + 2 * kSize, in_batch.values.begin() + 3 * kSize);
  const std::vector<double> second(in_batch.values.begin() + kSize, in_batch.values.begin() + 2 * kSize);
  EXPECT_EQ(third, alone.array().values);
  EXPECT_NE(second, alone.array().values);
  EXPECT_NE(later.array().values, alone.array().values);
}

TEST(CpuKernels, CopyRowsJoinsAndSplits) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u8}) {
    const Data left(type, Array(Shape{2, 2}, {1, 2, 3, 4})), right(type, Array(Shape{2, 3}, {5, 6, 7, 8, 9, 10}));
    Data joined(type, Shape{2, 5}), split(type, Shape{2, 3});
    const View whole = joined;
    View tail = whole;
    tail.data = whole.as<std::uint8_t>() + 2 * size_of(type);
    cpu().copy_rows(left, 2, whole, 5, 2, 2, {});
    cpu().copy_rows(right, 3, tail, 5, 2, 3, {});
    EXPECT_EQ(joined.array().values, (std::vector<double>{1, 2, 5, 6, 7, 3, 4, 8, 9, 10}));
    cpu().copy_rows(tail, 5, split, 3, 2, 3, {});
    EXPECT_EQ(split.bytes, right.bytes);
  }
}

TEST(CpuKernels, GatherPicksByIndex) {
  Data out(DType::i32, Shape{4});
  cpu().gather(test::indices({10, 20, 30}), test::indices({2, 0, 2, 1}), out, {});
  EXPECT_EQ(out.array().values, (std::vector<double>{30, 10, 30, 20}));
}

struct PoolCase {
  Shape x;
  PoolParams params;
};
const PoolCase kPoolCases[] = {
    {{2, 6, 6, 3}, {2, 2, 2, 2, 0, 0}},
    {{1, 7, 5, 17}, {3, 3, 2, 2, 1, 1}},   // the ImageNet stem's
    {{2, 5, 6, 2}, {3, 2, 1, 2, 1, 0}},    // unequal axes, overlapping
    {{1, 8, 8, 600}, {2, 2, 3, 3, 0, 0}},  // cells that no window covers; more channels than a block
    {{1, 4, 4, 5}, {4, 4, 1, 1, 2, 2}},
    {{2, 6, 7, 3}, {3, 3, 2, 2, 0, 0, 1, 1}},                     // padding behind only, uneven
    {{1, 6, 7, 3}, {3, 2, 2, 3, 1, 0, 0, 1, 1, 1, true}},         // rounded up in both axes
    {{1, 5, 8, 4}, {2, 3, 3, 2, 1, 2, 0, 1, 1, 1, true, false}},  // over pixels alone
};

TEST_P(EveryFloat, PoolingFollowsTheReference) {
  for (const PoolCase& c : kPoolCases) {
    const Data x(GetParam(), uniform(c.x, -1, 1, 7));
    const reference::MaxPool expected = reference::max_pool(x.array(), c.params);
    Data y(GetParam(), expected.y.shape), argmax(DType::i32, expected.y.shape);
    cpu().max_pool(x, c.params, y, argmax, {});
    expect_close(y, expected.y, 0);
    EXPECT_EQ(argmax.bytes, test::indices(expected.argmax).bytes);
    cpu().average_pool(x, c.params, y, {});
    expect_close(y, reference::average_pool(x.array(), c.params), 4 * test::rounding(GetParam()), 1);
    for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {2, 3}, {4, 4}}) {
      Data cells(GetParam(), Shape{c.x[0], h, w, c.x[3]});
      cpu().adaptive_average_pool(x, cells, {});
      expect_close(cells, reference::adaptive_average_pool(x.array(), h, w), 4 * test::rounding(GetParam()), 1);
    }
  }
}

TEST(CpuKernels, PoolingBackwardIsTheGradient) {
  for (const PoolCase& c : kPoolCases) {
    if (c.x.numel() > 1000) continue;  // differences cost a forward pass an element
    const Data x(DType::f64, uniform(c.x, -1, 1, 8));
    const reference::MaxPool forward = reference::max_pool(x.array(), c.params);
    const Data dy(DType::f64, uniform(forward.y.shape, -1, 1, 9));
    Data dx(DType::f64, c.x);
    Array scattered(c.x);
    for (std::int64_t i = 0; i < forward.y.numel(); ++i) {
      const std::int64_t n = i / (forward.y.numel() / c.x[0]), channel = i % c.x[3];
      scattered[(n * c.x[1] * c.x[2] + forward.argmax[static_cast<std::size_t>(i)]) * c.x[3] + channel] +=
          dy.array()[i];
    }
    cpu().max_pool_backward(dy, test::indices(forward.argmax), c.params, dx, {});
    expect_close(dx, scattered, 1e-15);
    cpu().average_pool_backward(dy, c.params, dx, {});
    expect_gradient(dx.array(), x.array(), dy.array(),
                    [&](const Array& v) { return reference::average_pool(v, c.params); });
    for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {2, 3}}) {
      const Data dcells(DType::f64, uniform({c.x[0], h, w, c.x[3]}, -1, 1, 10));
      cpu().adaptive_average_pool_backward(dcells, dx, {});
      expect_gradient(dx.array(), x.array(), dcells.array(),
                      [&, h = h, w = w](const Array& v) { return reference::adaptive_average_pool(v, h, w); });
    }
  }
}

TEST(CpuKernels, MaxPoolTakesTheFirstOfEqualsAndShowsNan) {
  const Data x(DType::f32, Array(Shape{1, 2, 4, 1}, {3, 3, -kInfinity, -kInfinity, 3, 3, -kInfinity, -kInfinity}));
  Data y(DType::f32, Shape{1, 1, 2, 1}), argmax(DType::i32, Shape{1, 1, 2, 1});
  cpu().max_pool(x, {2, 2, 2, 2, 0, 0}, y, argmax, {});
  EXPECT_EQ(y.array().values, (std::vector<double>{3, -kInfinity}));
  EXPECT_EQ(argmax.array().values, (std::vector<double>{0, 2}));
  const Data bad(DType::f32, Array(Shape{1, 2, 2, 1}, {3, kNan, 5, 1}));
  Data cell(DType::f32, Shape{1, 1, 1, 1}), chosen(DType::i32, Shape{1, 1, 1, 1});
  cpu().max_pool(bad, {2, 2, 2, 2, 0, 0}, cell, chosen, {});
  EXPECT_TRUE(std::isnan(cell.array()[0]));
  EXPECT_EQ(chosen.array()[0], 1);
}

TEST_P(EveryFloat, RowFunctionsFollowTheReference) {
  for (const Shape shape : {Shape{1, 1}, Shape{5, 10}, Shape{130, 100}, Shape{3, 1003}}) {
    const Data x(GetParam(), uniform(shape, -5, 5, 11));
    Data y(GetParam(), shape), norm(accumulation_type(GetParam()), Shape{shape.rows()});
    // The reference's exp(log softmax) has the error of an exponent near 15.
    const double tolerance = 4 * test::rounding(GetParam()) + 1e-14;
    cpu().softmax(x, y, {});
    expect_close(y, reference::softmax(x.array()), tolerance);
    cpu().log_softmax(x, y, {});
    expect_close(y, reference::log_softmax(x.array()), tolerance);
    cpu().l2_normalize(x, 1e-12, y, norm, {});
    expect_close(y, reference::l2_normalize(x.array(), 1e-12), tolerance);
    cpu().l2_normalize(x, 1e3, y, norm, {});  // every row is shorter than epsilon
    expect_close(y, reference::l2_normalize(x.array(), 1e3), tolerance);
  }
}

TEST(CpuKernels, RowFunctionsBackwardIsTheGradient) {
  const Shape shape{4, 9};
  const Data x(DType::f64, uniform(shape, -2, 2, 12)), dy(DType::f64, uniform(shape, -1, 1, 13));
  Data y(DType::f64, shape), dx(DType::f64, shape), norm(DType::f64, Shape{4});
  cpu().softmax(x, y, {});
  cpu().softmax_backward(y, dy, dx, {});
  expect_gradient(dx.array(), x.array(), dy.array(), reference::softmax);
  cpu().log_softmax(x, y, {});
  cpu().log_softmax_backward(y, dy, dx, {});
  expect_gradient(dx.array(), x.array(), dy.array(), reference::log_softmax);
  for (const double epsilon : {1e-12, 3.6, 100.0}) {  // below, among and above the rows' norms
    cpu().l2_normalize(x, epsilon, y, norm, {});
    cpu().l2_normalize_backward(y, norm, dy, epsilon, dx, {});
    expect_gradient(dx.array(), x.array(), dy.array(),
                    [=](const Array& v) { return reference::l2_normalize(v, epsilon); });
  }
}

TEST_P(EveryFloat, SoftmaxStandsLargeLogits) {
  const Data x(GetParam(), Array(Shape{2, 2}, {1e4, 1e4, -1e4, 1e4}));
  Data y(GetParam(), x.shape);
  cpu().softmax(x, y, {});
  expect_close(y, Array(Shape{2, 2}, {0.5, 0.5, 0, 1}), 0);
}

TEST_P(EveryFloat, CrossEntropyFollowsTheReference) {
  for (const double smoothing : {0.0, 0.1}) {
    for (const Shape shape : {Shape{1, 2}, Shape{7, 10}, Shape{300, 100}}) {
      const Data x(GetParam(), uniform(shape, -5, 5, 14));
      std::vector<std::int32_t> labels;
      for (std::int64_t r = 0; r < shape.rows(); ++r) labels.push_back(static_cast<std::int32_t>(r * 7 % shape.last()));
      const DType sums = accumulation_type(GetParam());
      Data loss(sums, Shape{1}), log_sum_exp(sums, Shape{shape.rows()}), dx(GetParam(), shape);
      cpu().cross_entropy(x, test::indices(labels), smoothing, loss, log_sum_exp, {});
      expect_close(loss, Array(Shape{1}, reference::cross_entropy(x.array(), labels, smoothing)),
                   2 * test::rounding(sums) + 1e-14, 1);
      cpu().cross_entropy_backward(x, test::indices(labels), log_sum_exp, Data(sums, Array(Shape{1}, 0.5)), smoothing,
                                   dx, {});
      Array expected = reference::softmax(x.array());
      for (std::int64_t i = 0; i < expected.numel(); ++i) {
        const bool own = labels[static_cast<std::size_t>(i / shape.last())] == i % shape.last();
        const double q = (1 - smoothing) * (own ? 1 : 0) + smoothing / static_cast<double>(shape.last());
        expected[i] = 0.5 * (expected[i] - q) / static_cast<double>(shape.rows());
      }
      expect_close(dx, expected, 4 * test::rounding(GetParam()), 0.5 / static_cast<double>(shape.rows()));
    }
  }
}

TEST(CpuKernels, MetricsBreakTiesByOrderAndAddUp) {
  const Data logits(DType::f32, Array(Shape{4, 7}, {1, 1, 0, 0, 0, 0, 0,     // label 0: first of two equals
                                                    1, 1, 0, 0, 0, 0, 0,     // label 1: second
                                                    0, 0, 0, 0, 0, 0, 0,     // label 4: fifth
                                                    0, 0, 0, 0, 0, 0, 0}));  // label 5: sixth
  const std::vector<std::int32_t> labels = {0, 1, 4, 5};
  Data metrics(DType::f64, Array(Shape{4}, {100, 10, 20, 30}));
  cpu().accumulate_metrics(logits, test::indices(labels), metrics, {});
  EXPECT_NEAR(metrics.array()[0], 100 + 4 * reference::cross_entropy(logits.array(), labels, 0), 1e-6);
  EXPECT_EQ(metrics.array()[1], 10 + 1);
  EXPECT_EQ(metrics.array()[2], 20 + 3);
  EXPECT_EQ(metrics.array()[3], 30 + 4);
}

TEST_P(EveryFloat, MetricsDoNotRankRowsWithANonfiniteLogit) {
  const Data logits(GetParam(), Array(Shape{4, 3}, {5, kNan, 0, kInfinity, 0, 0, 5, 0, -kInfinity, 5, 0, 0}));
  Data metrics(DType::f64, Array(Shape{4}));
  cpu().accumulate_metrics(logits, test::indices({0, 0, 0, 0}), metrics, {});
  EXPECT_TRUE(std::isnan(metrics.array()[0]));
  EXPECT_EQ(metrics.array()[1], 1);
  EXPECT_EQ(metrics.array()[2], 1);
  EXPECT_EQ(metrics.array()[3], 4);
}

// Sums are cut by shape and merged in order, so the number of threads must not show in a single bit.
TEST(CpuKernels, ResultsDoNotDependOnTheNumberOfThreads) {
  const int before = omp_get_max_threads();
  const Data x(DType::f32, uniform({50000, 24}, -1, 1, 15)), logits(DType::f32, uniform({4096, 100}, -4, 4, 16));
  std::vector<std::int32_t> labels(4096);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 100);
  std::vector<std::vector<std::uint8_t>> first;
  for (const int threads : {1, 2, 3, 7}) {
    omp_set_num_threads(threads);
    Data total(DType::f32, Shape{1}), rows(DType::f32, Shape{24}), norm(DType::f64, Shape{1}),
        loss(DType::f32, Shape{1});
    Data log_sum_exp(DType::f32, Shape{4096}), metrics(DType::f64, Array(Shape{4}));
    cpu().sum(x, 1, total, {});
    cpu().sum_rows(x, rows, {});
    cpu().norm(x, norm, {});
    cpu().cross_entropy(logits, test::indices(labels), 0.1, loss, log_sum_exp, {});
    cpu().accumulate_metrics(logits, test::indices(labels), metrics, {});
    const std::vector<std::vector<std::uint8_t>> now = {total.bytes, rows.bytes, norm.bytes, loss.bytes, metrics.bytes};
    if (first.empty()) first = now;
    EXPECT_EQ(now, first) << threads << " threads";
  }
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace retort
