#include "tests/support/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/philox.h"

namespace retort::reference {
namespace {

double activate(double v, kernels::Activation kind) {
  switch (kind) {
    case kernels::Activation::identity:
      return v;
    case kernels::Activation::relu:
      return std::max(v, 0.0);
    case kernels::Activation::relu6:
      return std::min(std::max(v, 0.0), 6.0);
  }
  return v;
}

template <typename F>
Array map(const Array& x, F f) {
  Array y = x;
  for (double& v : y.values) v = f(v);
  return y;
}

// One axis of a pooling, by the definition: the windows that begin at -pad, -pad + stride, ...
struct PoolAxis {
  std::int64_t in, kernel, stride, pad, pad_end, dilation;
  bool ceil_mode;

  std::int64_t begin(std::int64_t o) const { return o * stride - pad; }
  std::int64_t behind(std::int64_t o) const { return begin(o) + (kernel - 1) * dilation + 1; }
  bool pixel(std::int64_t i) const { return i >= 0 && i < in; }
  std::int64_t out() const {
    std::int64_t o = 0;
    while (behind(o) <= in + pad_end) ++o;
    // The next window hangs over; it counts when the one before it left something of the padded input over.
    const bool complete = o > 0 && behind(o - 1) == in + pad_end;
    return ceil_mode && !complete && begin(o) < in ? o + 1 : o;
  }
};
PoolAxis rows_of(const Array& x, const kernels::PoolParams& p) {
  return {x.shape[1],   p.kernel_h, p.stride_h, p.pad_h, p.pad_h_end < 0 ? p.pad_h : p.pad_h_end,
          p.dilation_h, p.ceil_mode};
}
PoolAxis columns_of(const Array& x, const kernels::PoolParams& p) {
  return {x.shape[2],   p.kernel_w, p.stride_w, p.pad_w, p.pad_w_end < 0 ? p.pad_w : p.pad_w_end,
          p.dilation_w, p.ceil_mode};
}

}  // namespace

double& Array::at(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
  return (*this)[((n * shape[1] + h) * shape[2] + w) * shape[3] + c];
}
double Array::at(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) const {
  return (*this)[((n * shape[1] + h) * shape[2] + w) * shape[3] + c];
}

Array uniform(const Shape& shape, double low, double high, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  // Not std::uniform_real_distribution, whose numbers differ between libraries.
  return map(Array(shape),
             [&](double) { return low + (high - low) * static_cast<double>(engine() >> 11) * 0x1.0p-53; });
}

Array add(const Array& a, const Array& b) {
  Array y = a;
  for (std::int64_t i = 0; i < y.numel(); ++i) y[i] += b[i];
  return y;
}

Array scale(const Array& x, double factor) {
  return map(x, [=](double v) { return factor * v; });
}

Array activation(const Array& x, kernels::Activation kind) {
  return map(x, [=](double v) { return activate(v, kind); });
}

Array square(const Array& x) {
  return map(x, [](double v) { return v * v; });
}

Array dropout(const Array& x, const std::vector<std::int32_t>& sample_ids, std::int32_t epoch, double p,
              kernels::RandomKey key) {
  Array y = x;
  const std::int64_t size = x.numel() / x.shape[0];
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const auto e = static_cast<std::uint32_t>(i % size);
    const auto sample = static_cast<std::uint32_t>(sample_ids[static_cast<std::size_t>(i / size)]);
    const Philox4 random = random_block(key.seed, key.purpose, static_cast<std::uint32_t>(epoch), sample, e / 4);
    y[i] = static_cast<double>(uniform_of(random.v[e % 4])) < p ? 0 : x[i] / (1 - p);
  }
  return y;
}

double sum(const Array& x) {
  long double total = 0;
  for (double v : x.values) total += v;
  return static_cast<double>(total);
}

double norm(const Array& x) {
  return std::sqrt(sum(square(x)));
}

Array sum_rows(const Array& x) {
  const std::int64_t channels = x.shape.last();
  std::vector<long double> sums(static_cast<std::size_t>(channels));
  for (std::int64_t i = 0; i < x.numel(); ++i) sums[static_cast<std::size_t>(i % channels)] += x[i];
  return Array(Shape{channels}, std::vector<double>(sums.begin(), sums.end()));
}

BatchNorm batch_norm(const Array& x, const Array& residual, const Array& gamma, const Array& beta, double epsilon,
                     kernels::Activation act) {
  const std::int64_t channels = x.shape.last();
  const auto rows = static_cast<double>(x.shape.rows());
  BatchNorm result;
  result.mean = scale(sum_rows(x), 1 / rows);
  Array deviation = x;
  for (std::int64_t i = 0; i < x.numel(); ++i) deviation[i] -= result.mean[i % channels];
  result.variance = scale(sum_rows(square(deviation)), 1 / rows);
  result.invstd = map(result.variance, [=](double v) { return 1 / std::sqrt(v + epsilon); });
  result.y = batch_norm_inference(x, residual, gamma, beta, result.mean, result.variance, epsilon, act);
  return result;
}

Array batch_norm_inference(const Array& x, const Array& residual, const Array& gamma, const Array& beta,
                           const Array& mean, const Array& variance, double epsilon, kernels::Activation act) {
  const std::int64_t channels = x.shape.last();
  Array y = x;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const std::int64_t c = i % channels;
    const double normal = (x[i] - mean[c]) / std::sqrt(variance[c] + epsilon);
    y[i] = activate(gamma[c] * normal + beta[c] + (residual.values.empty() ? 0 : residual[i]), act);
  }
  return y;
}

MaxPool max_pool(const Array& x, const kernels::PoolParams& p) {
  const std::int64_t batch = x.shape[0], width = x.shape[2], channels = x.shape[3];
  const PoolAxis rows = rows_of(x, p), columns = columns_of(x, p);
  MaxPool result;
  result.y = Array(Shape{batch, rows.out(), columns.out(), channels});
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t oh = 0; oh < result.y.shape[1]; ++oh) {
      for (std::int64_t ow = 0; ow < result.y.shape[2]; ++ow) {
        for (std::int64_t c = 0; c < channels; ++c) {
          double best = -std::numeric_limits<double>::infinity();
          std::int64_t chosen = -1;
          for (std::int64_t h = rows.begin(oh); h < rows.behind(oh); h += rows.dilation) {
            for (std::int64_t w = columns.begin(ow); w < columns.behind(ow); w += columns.dilation) {
              if (!rows.pixel(h) || !columns.pixel(w)) continue;
              if (chosen < 0 || x.at(n, h, w, c) > best) {
                best = x.at(n, h, w, c);
                chosen = h * width + w;
              }
            }
          }
          result.y.at(n, oh, ow, c) = best;
          result.argmax.push_back(static_cast<std::int32_t>(chosen));
        }
      }
    }
  }
  return result;
}

Array average_pool(const Array& x, const kernels::PoolParams& p) {
  const std::int64_t batch = x.shape[0], channels = x.shape[3];
  const PoolAxis rows = rows_of(x, p), columns = columns_of(x, p);
  Array y(Shape{batch, rows.out(), columns.out(), channels});
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t oh = 0; oh < y.shape[1]; ++oh) {
      for (std::int64_t ow = 0; ow < y.shape[2]; ++ow) {
        for (std::int64_t c = 0; c < channels; ++c) {
          double total = 0, count = 0;
          for (std::int64_t h = rows.begin(oh); h < rows.behind(oh); ++h) {
            for (std::int64_t w = columns.begin(ow); w < columns.behind(ow); ++w) {
              const bool real = rows.pixel(h) && columns.pixel(w);
              const bool padded = h < rows.in + rows.pad_end && w < columns.in + columns.pad_end;
              if (real) total += x.at(n, h, w, c);
              if (p.count_padding ? padded : real) count += 1;
            }
          }
          y.at(n, oh, ow, c) = total / count;
        }
      }
    }
  }
  return y;
}

Array adaptive_average_pool(const Array& x, std::int64_t out_h, std::int64_t out_w) {
  const std::int64_t batch = x.shape[0], height = x.shape[1], width = x.shape[2], channels = x.shape[3];
  const auto begin = [](std::int64_t i, std::int64_t length, std::int64_t n) {
    return static_cast<std::int64_t>(std::floor(static_cast<double>(i * length) / static_cast<double>(n)));
  };
  const auto end = [](std::int64_t i, std::int64_t length, std::int64_t n) {
    return static_cast<std::int64_t>(std::ceil(static_cast<double>((i + 1) * length) / static_cast<double>(n)));
  };
  Array y(Shape{batch, out_h, out_w, channels});
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t oh = 0; oh < out_h; ++oh) {
      for (std::int64_t ow = 0; ow < out_w; ++ow) {
        for (std::int64_t c = 0; c < channels; ++c) {
          double total = 0, count = 0;
          for (std::int64_t h = begin(oh, height, out_h); h < end(oh, height, out_h); ++h) {
            for (std::int64_t w = begin(ow, width, out_w); w < end(ow, width, out_w); ++w) {
              total += x.at(n, h, w, c);
              count += 1;
            }
          }
          y.at(n, oh, ow, c) = total / count;
        }
      }
    }
  }
  return y;
}

Array log_softmax(const Array& x) {
  const std::int64_t columns = x.shape.last();
  Array y = x;
  for (std::int64_t r = 0; r < x.shape.rows(); ++r) {
    const auto row = x.values.begin() + r * columns;
    const double max = *std::max_element(row, row + columns);
    long double total = 0;
    for (std::int64_t c = 0; c < columns; ++c) total += std::exp(row[c] - max);
    const auto log_total = static_cast<double>(std::log(total));
    for (std::int64_t c = 0; c < columns; ++c) y[r * columns + c] = row[c] - max - log_total;
  }
  return y;
}

Array softmax(const Array& x) {
  return map(log_softmax(x), [](double v) { return std::exp(v); });
}

Array l2_normalize(const Array& x, double epsilon) {
  const std::int64_t columns = x.shape.last();
  Array y = x;
  for (std::int64_t r = 0; r < x.shape.rows(); ++r) {
    long double squares = 0;
    for (std::int64_t c = 0; c < columns; ++c) squares += x[r * columns + c] * x[r * columns + c];
    const double length = std::sqrt(static_cast<double>(squares));
    for (std::int64_t c = 0; c < columns; ++c) y[r * columns + c] /= std::max(length, epsilon);
  }
  return y;
}

double cross_entropy(const Array& logits, const std::vector<std::int32_t>& labels, double smoothing) {
  const std::int64_t columns = logits.shape.last(), rows = logits.shape.rows();
  const Array log_probability = log_softmax(logits);
  long double total = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const double q = (1 - smoothing) * (labels[static_cast<std::size_t>(r)] == c ? 1 : 0) +
                       smoothing / static_cast<double>(columns);
      total -= q * log_probability[r * columns + c];
    }
  }
  return static_cast<double>(total) / static_cast<double>(rows);
}

}  // namespace retort::reference
