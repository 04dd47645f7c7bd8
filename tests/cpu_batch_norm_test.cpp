// The CPU's batch normalisation against the two-pass reference: all fusions, all widths, hard numbers, any number of
// threads.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "tests/support/backend_arrays.h"

namespace retort {
namespace {

using kernels::Activation;
using reference::Array;
using test::cpu;
using test::Data;
using test::expect_close;
using test::uniform;

// One layer with all its buffers.
struct Layer {
  Layer(DType type, const Shape& shape, const Array& input, Activation activation, bool with_residual)
      : act(activation),
        x(type, input),
        y(type, shape),
        gamma(accumulation_type(type), uniform({shape.last()}, 0.5, 1.5, 21)),
        beta(gamma.type, uniform({shape.last()}, -0.5, 0.5, 22)),
        mean(gamma.type, gamma.shape),
        invstd(gamma.type, gamma.shape),
        running_mean(gamma.type, uniform({shape.last()}, -1, 1, 23)),
        running_var(gamma.type, uniform({shape.last()}, 0.5, 2, 24)),
        counter(DType::i32, Array(Shape{1}, 41)),
        residual(type, with_residual ? uniform(shape, -1, 1, 25) : Array(Shape{0})) {}

  ConstView residual_view() const { return residual.shape.numel() > 0 ? ConstView(residual) : ConstView(); }
  Array residual_array() const { return residual.shape.numel() > 0 ? residual.array() : Array(); }
  void forward(double momentum = 0.1) {
    cpu().batch_norm_training(x, residual_view(), gamma, beta, momentum, kEpsilon, act, y, mean, invstd, running_mean,
                              running_var, counter, {});
  }
  reference::BatchNorm expected() const {
    return reference::batch_norm(x.array(), residual_array(), gamma.array(), beta.array(), kEpsilon, act);
  }

  static constexpr double kEpsilon = 1e-5;
  Activation act;
  Data x, y, gamma, beta, mean, invstd, running_mean, running_var, counter, residual;
};

Array constant(const Array& like, double value) {
  return Array(like.shape, value);
}

// Differences of values about 1 in size, in units of the accumulation type.
double tolerance_of(DType type) {
  return type == DType::f64 ? 1e-13 : type == DType::f32 ? 2e-6 : 0x1p-7;
}

class BatchNorm : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(CpuKernels, BatchNorm, ::testing::Values(DType::f64, DType::f32, DType::bf16),
                         [](const auto& p) { return std::string(name_of(p.param)); });

// Widths with folded rows (below 64), with one and with several blocks of channels (above 512); row counts that leave
// every kind of rest.
const Shape kShapes[] = {{6, 3},   {5, 7, 3, 3},  {1013, 16}, {4, 9, 11, 24},  {100, 63},
                         {67, 64}, {2, 5, 7, 96}, {9, 513},   {2, 6, 6, 1040}, {40000, 3}};

TEST_P(BatchNorm, ForwardFollowsTheReference) {
  for (const Shape& shape : kShapes) {
    for (const auto act : {Activation::identity, Activation::relu, Activation::relu6}) {
      for (const bool with_residual : {false, true}) {
        Layer layer(GetParam(), shape, uniform(shape, -2, 3, 20), act, with_residual);
        const Array old_mean = layer.running_mean.array(), old_var = layer.running_var.array();
        layer.forward(0.25);
        const reference::BatchNorm expected = layer.expected();
        const double statistics = tolerance_of(accumulation_type(GetParam()));
        expect_close(layer.y, expected.y, tolerance_of(GetParam()));
        expect_close(layer.mean, expected.mean, statistics);
        expect_close(layer.invstd, expected.invstd, statistics);
        Array mean = old_mean, var = old_var;
        const auto rows = static_cast<double>(shape.rows());
        for (std::int64_t c = 0; c < shape.last(); ++c) {
          mean[c] = 0.75 * mean[c] + 0.25 * expected.mean[c];
          var[c] = 0.75 * var[c] + 0.25 * expected.variance[c] * rows / (rows - 1);
        }
        expect_close(layer.running_mean, mean, statistics);
        expect_close(layer.running_var, var, statistics);
        EXPECT_EQ(layer.counter.array()[0], 42);

        cpu().batch_norm_inference(layer.x, layer.residual_view(), layer.gamma, layer.beta, layer.running_mean,
                                   layer.running_var, Layer::kEpsilon, act, layer.y, {});
        expect_close(layer.y,
                     reference::batch_norm_inference(layer.x.array(), layer.residual_array(), layer.gamma.array(),
                                                     layer.beta.array(), layer.running_mean.array(),
                                                     layer.running_var.array(), Layer::kEpsilon, act),
                     tolerance_of(GetParam()));
      }
    }
  }
}

// The gradients from their formulas, in f64: g behind the activation, then Ioffe & Szegedy's sums.
TEST_P(BatchNorm, BackwardFollowsTheFormula) {
  for (const Shape& shape : kShapes) {
    for (const auto act : {Activation::identity, Activation::relu, Activation::relu6}) {
      for (const bool batch_statistics : {true, false}) {
        Layer layer(GetParam(), shape, uniform(shape, -2, 3, 20), act, true);
        layer.forward();
        const Array x = layer.x.array(), y = layer.y.array(), gamma = layer.gamma.array();
        const Array mean = layer.mean.array(), invstd = layer.invstd.array();
        const std::int64_t channels = shape.last();
        const auto rows = static_cast<double>(shape.rows());
        const Data dy(GetParam(), uniform(shape, -1, 1.5, 26));
        Array g = dy.array(), dgamma(gamma.shape), dbeta(gamma.shape), dx(shape);
        for (std::int64_t i = 0; i < g.numel(); ++i) {
          const bool open = act == Activation::identity || (y[i] > 0 && (act == Activation::relu || y[i] < 6));
          if (!open) g[i] = 0;
          dbeta[i % channels] += g[i];
          dgamma[i % channels] += g[i] * (x[i] - mean[i % channels]) * invstd[i % channels];
        }
        for (std::int64_t i = 0; i < g.numel(); ++i) {
          const std::int64_t c = i % channels;
          const double normal = (x[i] - mean[c]) * invstd[c];
          dx[i] = gamma[c] * invstd[c] * (g[i] - (batch_statistics ? (dbeta[c] + normal * dgamma[c]) / rows : 0));
        }
        const DType sums = accumulation_type(GetParam());
        for (const bool keep : {true, false}) {
          Data in(GetParam(), shape), kept(GetParam(), shape), out_gamma(sums, gamma.shape),
              out_beta(sums, gamma.shape);
          cpu().batch_norm_backward(layer.x, layer.y, dy, layer.gamma, {}, layer.mean, layer.invstd, act,
                                    batch_statistics, in, keep ? View(kept) : View(), out_gamma, out_beta, {});
          expect_close(in, dx, 2 * tolerance_of(GetParam()));
          if (keep) expect_close(kept, g, 0);
          expect_close(out_beta, dbeta, 2 * tolerance_of(sums));
          expect_close(out_gamma, dgamma, 2 * tolerance_of(sums));
          // dresidual over dy, without dx.
          Data in_place = dy;
          cpu().batch_norm_backward(layer.x, layer.y, in_place, layer.gamma, {}, layer.mean, layer.invstd, act,
                                    batch_statistics, View(), keep ? View(in_place) : View(), out_gamma, out_beta, {});
          expect_close(in_place, keep ? g : dy.array(), 0);
          expect_close(out_gamma, dgamma, 2 * tolerance_of(sums));
        }
      }
    }
  }
}

// The formula of the test above, itself against differences of the reference.
TEST(CpuKernels, BatchNormBackwardIsTheGradient) {
  const Shape shape{6, 3};
  Layer layer(DType::f64, shape, uniform(shape, -2, 3, 27), Activation::relu, true);
  layer.forward();
  const Data dy(DType::f64, uniform(shape, -1, 1, 28));
  Data dx(DType::f64, shape), dresidual(DType::f64, shape), dgamma(DType::f64, Shape{3}), dbeta(DType::f64, Shape{3});
  cpu().batch_norm_backward(layer.x, layer.y, dy, layer.gamma, {}, layer.mean, layer.invstd, layer.act, true, dx,
                            dresidual, dgamma, dbeta, {});
  const auto check = [&](Data& input, const Data& gradient) {
    for (std::int64_t i = 0; i < input.shape.numel(); ++i) {
      const double value = input.get(i);
      const auto objective = [&](double v) {
        input.set(i, v);
        const Array y = layer.expected().y;
        double total = 0;
        for (std::int64_t j = 0; j < y.numel(); ++j) total += y[j] * dy.get(j);
        return total;
      };
      const double slope = (objective(value + 1e-6) - objective(value - 1e-6)) / 2e-6;
      input.set(i, value);
      EXPECT_NEAR(gradient.get(i), slope, 1e-8) << i;
    }
  };
  check(layer.x, dx);
  check(layer.residual, dresidual);
  check(layer.gamma, dgamma);
  check(layer.beta, dbeta);
}

// Mean 1000, standard deviation 1, in f32: summed squares would lose the variance whole.
TEST(CpuKernels, BatchNormStandsALargeMean) {
  for (const Shape& shape : {Shape{50000, 3}, Shape{131072, 16}, Shape{16384, 64}, Shape{512, 600}}) {
    // Also with the first row, from which the kernel takes its bearings, 1000 standard deviations off: that may cost
    // the variance two or three bits.
    for (const bool outlier : {false, true}) {
      Array input = uniform(shape, -std::sqrt(3.0), std::sqrt(3.0), 29);
      for (double& v : input.values) v += 1000;
      for (std::int64_t c = 0; outlier && c < shape.last(); ++c) input[c] = 0;
      Layer layer(DType::f32, shape, input, Activation::identity, false);
      layer.forward();
      const reference::BatchNorm expected = layer.expected();
      expect_close(layer.mean, expected.mean, 0x1p-24);  // correctly rounded
      expect_close(layer.invstd, expected.invstd, outlier ? 0x1p-19 : 0x1p-22);
      // x - mean carries the rounding of a mean near 1000, 3e-5, and nothing more.
      for (std::int64_t i = 0; i < expected.y.numel(); ++i) {
        ASSERT_NEAR(layer.y.get(i), expected.y[i], 1e-4 + 0x1p-19 * std::abs(expected.y[i])) << i;
      }
    }
  }
}

TEST(CpuKernels, BatchNormOfConstantsAndOfOneRowIsFinite) {
  Layer same(DType::f32, {1000, 5}, Array(Shape{1000, 5}, 12345.678), Activation::identity, false);
  same.forward();
  expect_close(same.invstd, constant(same.invstd.array(), 1 / std::sqrt(Layer::kEpsilon)), 1e-6);
  Layer row(DType::f32, {1, 5}, uniform({1, 5}, 1, 2, 30), Activation::identity, false);
  row.forward();
  expect_close(row.y, row.beta.array(), 1e-6);
  for (double v : row.running_var.array().values) EXPECT_TRUE(std::isfinite(v));
}

TEST(CpuKernels, BatchNormDoesNotDependOnTheNumberOfThreads) {
  const int before = omp_get_max_threads();
  for (const Shape& shape : {Shape{60000, 3}, Shape{20011, 16}, Shape{3000, 128}, Shape{300, 1040}}) {
    std::vector<std::vector<std::uint8_t>> first;
    for (const int threads : {1, 2, 3, 5}) {
      omp_set_num_threads(threads);
      Layer layer(DType::f32, shape, uniform(shape, -2, 3, 31), Activation::relu, true);
      layer.forward();
      const Data dy(DType::f32, uniform(shape, -1, 1, 32));
      Data dx(DType::f32, shape), dresidual(DType::f32, shape), dgamma(DType::f32, layer.gamma.shape), dbeta = dgamma;
      cpu().batch_norm_backward(layer.x, layer.y, dy, layer.gamma, {}, layer.mean, layer.invstd, layer.act, true, dx,
                                dresidual, dgamma, dbeta, {});
      const std::vector<std::vector<std::uint8_t>> now = {
          layer.y.bytes, layer.mean.bytes, layer.invstd.bytes, layer.running_var.bytes,
          dx.bytes,      dresidual.bytes,  dgamma.bytes,       dbeta.bytes};
      if (first.empty()) first = now;
      EXPECT_EQ(now, first) << threads << " threads, " << shape.to_string();
    }
  }
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace retort
