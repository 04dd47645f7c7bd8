// Naive references in f64 (long sums in long double), written from the formulas and sharing no code with the kernels:
// what a kernel is compared with. Slow and plain on purpose. Layouts are those of kernels/kernels.h.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace retort::reference {

struct Array {
  Shape shape;
  std::vector<double> values;

  Array() = default;
  explicit Array(const Shape& s, double value = 0) : shape(s), values(static_cast<std::size_t>(s.numel()), value) {}
  Array(const Shape& s, std::vector<double> v) : shape(s), values(std::move(v)) {}
  std::int64_t numel() const { return static_cast<std::int64_t>(values.size()); }
  double& operator[](std::int64_t i) { return values[static_cast<std::size_t>(i)]; }
  double operator[](std::int64_t i) const { return values[static_cast<std::size_t>(i)]; }
  // Element (n, h, w, c) of an [N, H, W, C] array.
  double& at(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c);
  double at(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) const;
};

// Uniform in [low, high), the same for the same seed.
Array uniform(const Shape& shape, double low, double high, std::uint64_t seed);

// --- elementwise
Array add(const Array& a, const Array& b);
Array scale(const Array& x, double factor);
Array activation(const Array& x, kernels::Activation kind);
Array square(const Array& x);
Array dropout(const Array& x, const std::vector<std::int32_t>& sample_ids, std::int32_t epoch, double p,
              kernels::RandomKey key);

// --- reductions
double sum(const Array& x);
double norm(const Array& x);
Array sum_rows(const Array& x);

// --- batch normalisation
struct BatchNorm {
  Array y, mean, variance, invstd;  // variance is the biased one
};
// residual may be empty (no values).
BatchNorm batch_norm(const Array& x, const Array& residual, const Array& gamma, const Array& beta, double epsilon,
                     kernels::Activation act);
Array batch_norm_inference(const Array& x, const Array& residual, const Array& gamma, const Array& beta,
                           const Array& mean, const Array& variance, double epsilon, kernels::Activation act);

// --- pooling
struct MaxPool {
  Array y;
  std::vector<std::int32_t> argmax;
};
MaxPool max_pool(const Array& x, const kernels::PoolParams& params);
Array average_pool(const Array& x, const kernels::PoolParams& params);
Array adaptive_average_pool(const Array& x, std::int64_t out_h, std::int64_t out_w);

// --- rows
Array softmax(const Array& x);
Array log_softmax(const Array& x);
Array l2_normalize(const Array& x, double epsilon);
double cross_entropy(const Array& logits, const std::vector<std::int32_t>& labels, double smoothing);

}  // namespace retort::reference
