#include "tests/support/feature_loss_reference.h"

#include <cmath>

namespace retort::reference {
namespace {

template <typename F>
double mean_over_elements(const Array& x, const Array& t, F f) {
  long double total = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) total += f(x[i], t[i]);
  return static_cast<double>(total / x.numel());
}

// Mean over all pairs of columns of one sample of the polynomial kernel (a b)².
double mean_kernel(const Array& a, const Array& b, std::int64_t sample) {
  const std::int64_t rows_a = a.shape[1], rows_b = b.shape[1], features = a.shape[2];
  double total = 0;
  for (std::int64_t i = 0; i < rows_a; ++i) {
    for (std::int64_t j = 0; j < rows_b; ++j) {
      double product = 0;
      for (std::int64_t d = 0; d < features; ++d) {
        product += a[(sample * rows_a + i) * features + d] * b[(sample * rows_b + j) * features + d];
      }
      total += product * product;
    }
  }
  return total / static_cast<double>(rows_a * rows_b);
}

}  // namespace

double mean_squared_error(const Array& x, const Array& target) {
  return mean_over_elements(x, target, [](double a, double b) { return (a - b) * (a - b); });
}

double smooth_l1(const Array& x, const Array& target, double beta) {
  return mean_over_elements(x, target, [beta](double a, double b) {
    const double d = std::abs(a - b);
    return d < beta ? d * d / (2 * beta) : d - beta / 2;
  });
}

double binary_cross_entropy(const Array& logits, const Array& target) {
  return mean_over_elements(logits, target, [](double x, double t) {
    // -t log p - (1 - t) log(1 - p), p = 1 / (1 + e^-x); a long double holds e^x for every x of the tests.
    const long double log_p = -std::log1p(std::exp(-static_cast<long double>(x)));
    const long double log_q = -std::log1p(std::exp(static_cast<long double>(x)));
    return -t * log_p - (1 - t) * log_q;
  });
}

Array channel_energy(const Array& x, double p) {
  const std::int64_t positions = x.shape[1] * x.shape[2], channels = x.shape[3];
  Array y({x.shape[0], positions});
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    double total = 0;
    for (std::int64_t c = 0; c < channels; ++c) total += std::pow(std::abs(x[i * channels + c]), p);
    y[i] = total / static_cast<double>(channels);
  }
  return y;
}

Array channels_first(const Array& x) {
  const std::int64_t samples = x.shape[0], channels = x.shape.last(), positions = x.shape.rows() / samples;
  Array y({samples, channels, positions});
  for (std::int64_t n = 0; n < samples; ++n) {
    for (std::int64_t r = 0; r < positions; ++r) {
      for (std::int64_t c = 0; c < channels; ++c) {
        y[(n * channels + c) * positions + r] = x[(n * positions + r) * channels + c];
      }
    }
  }
  return y;
}

double neuron_selectivity(const Array& s, const Array& t) {
  double total = 0;
  for (std::int64_t n = 0; n < s.shape[0]; ++n) {
    total += mean_kernel(s, s, n) + mean_kernel(t, t, n) - 2 * mean_kernel(s, t, n);
  }
  return total / static_cast<double>(s.shape[0]);
}

double variational_information(const Array& mean, const Array& target, const Array& raw, double epsilon) {
  long double total = 0;
  for (std::int64_t i = 0; i < mean.numel(); ++i) {
    const double variance = std::log(1 + std::exp(raw[i % raw.numel()])) + epsilon;
    total += 0.5 * ((mean[i] - target[i]) * (mean[i] - target[i]) / variance + std::log(variance));
  }
  return static_cast<double>(total / mean.numel());
}

}  // namespace retort::reference
