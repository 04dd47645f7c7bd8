// What the operator table does not say of the losses between logits: operators without a gradient, values at the edge
// of a type's range, and messages.
#include "engine/ops/logit_losses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/autograd.h"
#include "tests/support/files.h"
#include "tests/support/logit_loss_reference.h"

namespace retort::testing {
namespace {

using reference::Array;
using test::error_of;
using ::testing::HasSubstr;

std::vector<Device> devices() {
  std::vector<Device> all{Device{}};
  if (kernels::cuda_device_count() > 0) all.push_back({DeviceType::cuda, 0});
  return all;
}

Tensor logits(const Shape& shape, double size, std::uint64_t seed, DType dtype = DType::f64, Device device = {}) {
  return Tensor::from(reference::uniform(shape, -size, size, seed).values, shape).to(dtype).to(device);
}

Array array_of(const Tensor& t) {
  return {t.shape(), t.to_doubles()};
}

double tolerance_of(DType dtype) {
  return dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 2e-6 : 2e-2;
}

TEST(MeanSoftmaxLogits, MatchesReference) {
  for (const Device device : devices()) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      for (const double temperature : {1.0, 4.0}) {
        for (const std::uint64_t teachers : {1u, 2u, 5u}) {
          std::vector<Tensor> inputs;
          std::vector<Array> arrays;
          for (std::uint64_t k = 0; k < teachers; ++k) {
            inputs.push_back(logits({9, 37}, k == 0 ? 40.0 : 3.0, k, dtype, device));
            arrays.push_back(array_of(inputs.back()));
          }
          const Array expected = reference::mean_softmax_logits(arrays, temperature);
          const Tensor result = mean_softmax_logits(inputs, temperature);
          ASSERT_EQ(result.dtype(), dtype);
          double largest = 1;
          for (double v : expected.values) largest = std::max(largest, std::abs(v));
          const std::vector<double> actual = result.to_doubles();
          for (std::size_t i = 0; i < actual.size(); ++i) {
            ASSERT_NEAR(actual[i], expected.values[i], tolerance_of(dtype) * largest)
                << name_of(dtype) << " on " << device.to_string() << ", " << teachers << " teachers, element " << i;
          }
        }
      }
    }
  }
}

// Probabilities far below the smallest float still have logits.
TEST(MeanSoftmaxLogits, KeepsTinyProbabilities) {
  for (const Device device : devices()) {
    const Tensor x = Tensor::from(std::vector<float>{0, -300, -2000}, {1, 3}, device);
    const std::vector<double> y = mean_softmax_logits({x, x}, 1.0).to_doubles();
    EXPECT_NEAR(y[1], -300, 1e-3);
    EXPECT_NEAR(y[2], -2000, 1e-3);
  }
}

TEST(MeanSoftmaxLogits, RefusesGradientsAndBadArguments) {
  Tensor x = logits({2, 3}, 1, 1);
  EXPECT_THAT(error_of([&] { mean_softmax_logits({}, 1); }), HasSubstr("mean_softmax_logits: no logits"));
  EXPECT_THAT(error_of([&] { mean_softmax_logits({x}, 0); }), HasSubstr("temperature must be positive, got 0"));
  EXPECT_THAT(error_of([&] {
                mean_softmax_logits({x, logits({2, 4}, 1, 1)}, 1);
              }),
              HasSubstr("mean_softmax_logits: the first logits [2, 3] and others [2, 4] do not match"));
  x.set_requires_grad();
  EXPECT_THAT(error_of([&] {
                mean_softmax_logits({logits({2, 3}, 1, 1), x}, 1);
              }),
              HasSubstr("mean_softmax_logits: has no backward"));
}

TEST(AccumulateAgreement, CountsAndAddsUp) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Device device : devices()) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      // Rows: agree; do not; a tie, where the first counts: agree, and do not.
      const Tensor a =
          Tensor::from(std::vector<double>{1, 3, 2, 5, 4, 1, 2, 2, 0, 0, 1, 1}, {4, 3}).to(dtype).to(device);
      const Tensor b =
          Tensor::from(std::vector<double>{0, 8, 2, 1, 4, 1, 3, 2, 3, 0, 0, 1}, {4, 3}).to(dtype).to(device);
      const Tensor sums = Tensor::from(std::vector<double>{10, 20, 30}, {3}, device);
      accumulate_agreement(a, b, sums);
      accumulate_agreement(a, b, sums);
      const std::vector<double> actual = sums.to_doubles();
      EXPECT_EQ(actual[0], 10 + 2 * 2);
      EXPECT_NEAR(actual[1], 20 + 2 * (6.0 + 4.0 + 4.0 + 1.0) / 3, 1e-12);
      EXPECT_EQ(actual[2], 30 + 2 * 4);

      // Equal rows, but not numbers.
      const Tensor bad = Tensor::from(std::vector<double>{1, nan, 0}, {1, 3}).to(dtype).to(device);
      const Tensor of_bad = Tensor::zeros({3}, DType::f64, device);
      accumulate_agreement(bad, bad, of_bad);
      EXPECT_EQ(of_bad.to_doubles()[0], 0);
      EXPECT_TRUE(std::isnan(of_bad.to_doubles()[1]));
      EXPECT_EQ(of_bad.to_doubles()[2], 1);
    }
  }
}

TEST(AccumulateAgreement, AgreesWithPlainCountingOnManyRows) {
  const Shape shape{70, 100};
  for (const Device device : devices()) {
    const Tensor a = logits(shape, 1, 3, DType::f32, device), noise = logits(shape, 0.3, 4, DType::f32);
    std::vector<float> other = a.to_host<float>();
    for (std::size_t i = 0; i < other.size(); ++i) other[i] += noise.to_host<float>()[i];
    const Tensor b = Tensor::from(other, shape, device), sums = Tensor::zeros({3}, DType::f64, device);
    accumulate_agreement(a, b, sums);
    const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
    double agreeing = 0, distance = 0;
    for (std::ptrdiff_t r = 0; r < 70; ++r) {
      const auto first = [&](const std::vector<double>& v) {
        return std::max_element(v.begin() + r * 100, v.begin() + (r + 1) * 100) - v.begin();
      };
      agreeing += first(x) == first(y) ? 1 : 0;
      for (auto i = static_cast<std::size_t>(r * 100); i < static_cast<std::size_t>(r + 1) * 100; ++i) {
        distance += std::abs(x[i] - y[i]) / 100;
      }
    }
    EXPECT_GT(agreeing, 0);
    EXPECT_LT(agreeing, 70);
    EXPECT_EQ(sums.to_doubles()[0], agreeing);
    EXPECT_NEAR(sums.to_doubles()[1], distance, 1e-9);
    EXPECT_EQ(sums.to_doubles()[2], 70);
  }
}

TEST(AccumulateAgreement, RefusesGradientsAndBadArguments) {
  Tensor a = logits({2, 3}, 1, 1);
  const Tensor b = logits({2, 3}, 1, 2), sums = Tensor::zeros({3}, DType::f64, {});
  EXPECT_THAT(error_of([&] { accumulate_agreement(a, b, Tensor::zeros({4}, DType::f64, {})); }),
              HasSubstr("accumulate_agreement: sums must be f64 [3]"));
  EXPECT_THAT(error_of([&] {
                accumulate_agreement(a, logits({3, 3}, 1, 1), sums);
              }),
              HasSubstr("accumulate_agreement: a [2, 3] and b [3, 3] do not match"));
  a.set_requires_grad();
  EXPECT_THAT(error_of([&] { accumulate_agreement(a, b, sums); }), HasSubstr("accumulate_agreement: has no backward"));
  const autograd::NoGradGuard no_grad;
  accumulate_agreement(a, b, sums);
  EXPECT_EQ(sums.to_doubles()[2], 2);
}

// Teacher and student both certain of the label: 1 - p is far below what any type can tell from 0 as a difference, and
// the divergence over {label, rest} is, to first order in the rests a and b, b - a + a log(a / b).
double divergence_of_rests(const std::vector<double>& student, const std::vector<double>& teacher, std::size_t label) {
  const auto rest = [&](const std::vector<double>& z) {
    double others = 0;
    for (std::size_t c = 0; c < z.size(); ++c) others += c == label ? 0 : std::exp(z[c] - z[label]);
    return others;
  };
  const double a = rest(teacher), b = rest(student);
  return b - a + a * std::log(a / b);
}

TEST(DecoupledKd, StaysExactWhereTheTargetIsCertain) {
  const std::vector<double> s{60, 1, -2, 0, 0, 50, 3, 1}, t{70, -1, 0.5, 2, 1, 44, -1, 2};
  const Shape shape{2, 4};
  const double target = (divergence_of_rests({60, 1, -2, 0}, {70, -1, 0.5, 2}, 0) +
                         divergence_of_rests({0, 50, 3, 1}, {1, 44, -1, 2}, 1)) /
                        2;
  ASSERT_GT(target, 0);
  ASSERT_LT(target, 1e-17);
  const double others = reference::decoupled_kd({shape, s}, {shape, t}, {0, 1}, 1.0).others;
  for (const Device device : devices()) {
    const Tensor label = Tensor::from(std::vector<std::int32_t>{0, 1}, {2}, device);
    const auto gradient_of = [&](DType dtype, double alpha, double beta) {
      Tensor student = Tensor::from(s, shape).to(dtype).to(device);
      student.set_requires_grad();
      const Tensor teacher = Tensor::from(t, shape).to(dtype).to(device);
      const Tensor loss = decoupled_kd(student, teacher, label, alpha, beta, 1.0);
      const double expected = alpha * target + beta * others;
      EXPECT_NEAR(loss.item(), expected, tolerance_of(dtype) * expected) << name_of(dtype);
      loss.backward();
      return student.grad().to_doubles();
    };
    // Relative to each element: those of the target's term are as small as it is.
    for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {0.0, 1.0}}) {
      const std::vector<double> exact = gradient_of(DType::f64, alpha, beta),
                                rounded = gradient_of(DType::f32, alpha, beta);
      for (std::size_t i = 0; i < exact.size(); ++i) {
        EXPECT_NEAR(rounded[i], exact[i], 1e-5 * std::abs(exact[i])) << "element " << i;
      }
    }
  }
}

TEST(StandardizeRows, ConstantRowGivesZeroAndFiniteGradient) {
  for (const Device device : devices()) {
    for (const DType dtype : {DType::f64, DType::f32}) {
      Tensor x = Tensor::full({2, 100}, 0.1, dtype, device);
      x.set_requires_grad();
      const Tensor y = standardize_rows(x);
      for (double v : y.to_doubles()) ASSERT_NEAR(v, 0, 1e-6);
      soft_targets(y, logits({2, 100}, 1, 1, dtype, device), 2.0).backward();
      for (double v : x.grad().to_doubles()) ASSERT_TRUE(std::isfinite(v));
    }
  }
}

TEST(LogitLosses, SayWhatIsWrong) {
  Tensor s = logits({2, 3}, 1, 1), t = logits({2, 3}, 1, 2);
  const Tensor label = Tensor::from(std::vector<std::int32_t>{0, 1}, {2});
  EXPECT_EQ(error_of([&] {
              soft_targets(s, logits({2, 4}, 1, 1), 1);
            }),
            "soft_targets: student logits [2, 3] and teacher logits [2, 4] do not match");
  EXPECT_EQ(error_of([&] { soft_targets(s, t.to(DType::f32), 1); }),
            "soft_targets: student logits are f64, teacher logits are f32");
  EXPECT_EQ(error_of([&] { soft_cross_entropy(s, t, -1); }),
            "soft_cross_entropy: the temperature must be positive, got -1");
  EXPECT_EQ(error_of([&] { decoupled_kd(s, t, label, 1, 1, 0); }),
            "decoupled_kd: the temperature must be positive, got 0");
  EXPECT_THAT(error_of([&] { decoupled_kd(s, t, Tensor::zeros({3}, DType::i32, {}), 1, 1, 1); }),
              HasSubstr("decoupled_kd: i32 labels [3] for logits [2, 3]"));
  EXPECT_THAT(error_of([&] {
                decoupled_kd(logits({2, 1}, 1, 1), logits({2, 1}, 1, 1), label, 1, 1, 1);
              }),
              HasSubstr("needs two classes at least"));
  EXPECT_THAT(error_of([&] { standardize_rows(logits({2, 1}, 1, 1)); }), HasSubstr("standardize_rows: a row of one"));
  EXPECT_THAT(error_of([&] {
                pearson_distance(s, logits({3, 3}, 1, 1), true);
              }),
              HasSubstr("pearson_distance: x [2, 3] and y [3, 3] do not match"));
  t.set_requires_grad();
  const std::string detach = ": the teacher logits require a gradient, but are a constant; detach() them";
  EXPECT_EQ(error_of([&] { soft_targets(s, t, 1); }), "soft_targets" + detach);
  EXPECT_EQ(error_of([&] { soft_cross_entropy(s, t, 1); }), "soft_cross_entropy" + detach);
  EXPECT_EQ(error_of([&] { decoupled_kd(s, t, label, 1, 1, 1); }), "decoupled_kd" + detach);
  EXPECT_EQ(error_of([&] { pearson_distance(s, t, false); }),
            "pearson_distance: y requires a gradient, but is a constant; detach() it");
}

}  // namespace
}  // namespace retort::testing
