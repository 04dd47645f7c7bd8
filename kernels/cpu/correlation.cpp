// Rows less their mean: standardisation, and the Pearson correlation of rows or columns. Means and sums are f64.
#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/logit_math.h"

namespace retort::kernels {
namespace cpu {
namespace {

template <typename T>
double wide(T value) {
  return static_cast<double>(load(value));
}

template <typename T>
double mean_of(const T* x, std::int64_t count) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < count; ++i) total += wide(x[i]);
  return total / static_cast<double>(count);
}

// 1 - the correlation of two rows; writes `factor` times its gradient by x.
template <typename T>
double pearson_of_row(const T* x, const T* y, std::int64_t columns, double epsilon, double factor, T* gradient) {
  using A = Accumulator<T>;
  const double mean_x = mean_of(x, columns), mean_y = mean_of(y, columns);
  double aa = 0, bb = 0, ab = 0;
#pragma omp simd reduction(+ : aa, bb, ab)
  for (std::int64_t c = 0; c < columns; ++c) {
    const double a = wide(x[c]) - mean_x, b = wide(y[c]) - mean_y;
    aa += a * a;
    bb += b * b;
    ab += a * b;
  }
  const Correlation correlation(aa, bb, ab, epsilon);
  if (gradient != nullptr) {
    const double along_a = factor * correlation.along_a, along_b = factor * correlation.along_b;
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) {
      gradient[c] = static_cast<T>(static_cast<A>(along_a * (wide(x[c]) - mean_x) - along_b * (wide(y[c]) - mean_y)));
    }
  }
  return 1 - correlation.value;
}

// The same of columns begin .. end - 1, walking along the rows of the matrices.
template <typename T>
class PearsonOfColumns {
 public:
  PearsonOfColumns(ConstView x, ConstView y, std::int64_t begin, std::int64_t end)
      : x_(x.as<T>() + begin),
        y_(y.as<T>() + begin),
        rows_(x.shape.rows()),
        pitch_(x.shape.last()),
        sums_(static_cast<std::size_t>(end - begin)) {
    for_each([](Sums& s, double a, double b) {
      s.mean_x += a;
      s.mean_y += b;
    });
    for (Sums& s : sums_) {
      s.mean_x /= static_cast<double>(rows_);
      s.mean_y /= static_cast<double>(rows_);
    }
    for_each([](Sums& s, double x_value, double y_value) {
      const double a = x_value - s.mean_x, b = y_value - s.mean_y;
      s.aa += a * a;
      s.bb += b * b;
      s.ab += a * b;
    });
  }

  // Writes one loss a column, and `factor` times the gradient where `gradient` (at column `begin`) is not null.
  void finish(double epsilon, double factor, double* losses, T* gradient) const {
    std::vector<Correlation> correlations;
    for (const Sums& s : sums_) {
      correlations.emplace_back(s.aa, s.bb, s.ab, epsilon);
      *losses++ = 1 - correlations.back().value;
    }
    if (gradient == nullptr) return;
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::size_t c = 0; c < sums_.size(); ++c) {
        const std::size_t at = static_cast<std::size_t>(r * pitch_) + c;
        const double a = wide(x_[at]) - sums_[c].mean_x, b = wide(y_[at]) - sums_[c].mean_y;
        gradient[at] = static_cast<T>(
            static_cast<Accumulator<T>>(factor * (correlations[c].along_a * a - correlations[c].along_b * b)));
      }
    }
  }

 private:
  struct Sums {
    double mean_x = 0, mean_y = 0, aa = 0, bb = 0, ab = 0;
  };
  template <typename F>
  void for_each(const F& f) {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::size_t c = 0; c < sums_.size(); ++c) {
        const std::size_t at = static_cast<std::size_t>(r * pitch_) + c;
        f(sums_[c], wide(x_[at]), wide(y_[at]));
      }
    }
  }

  const T *x_, *y_;
  std::int64_t rows_, pitch_;
  std::vector<Sums> sums_;
};

template <typename T>
void pearson_rows(ConstView x, ConstView y, double epsilon, double* losses, View gradient) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  parallel_for(rows, 4 * columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      losses[r] = pearson_of_row(x.as<T>() + r * columns, y.as<T>() + r * columns, columns, epsilon,
                                 1 / static_cast<double>(rows), gradient ? gradient.as<T>() + r * columns : nullptr);
    }
  });
}

template <typename T>
void pearson_columns(ConstView x, ConstView y, double epsilon, double* losses, View gradient) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  parallel_for(columns, 4 * rows, [&](std::int64_t begin, std::int64_t end) {
    PearsonOfColumns<T>(x, y, begin, end)
        .finish(epsilon, 1 / static_cast<double>(columns), losses + begin,
                gradient ? gradient.as<T>() + begin : nullptr);
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::standardize_rows(ConstView x, double epsilon, View y, View deviation, Stream) {
  assert(x.dtype == y.dtype && x.shape == y.shape && deviation.numel() == x.shape.rows() && x.shape.last() > 1);
  const std::int64_t columns = x.shape.last();
  dispatch_floating("standardize_rows", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    parallel_for(x.shape.rows(), 3 * columns, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* const in = x.as<T>() + r * columns;
        T* const out = y.as<T>() + r * columns;
        const double mean = mean_of(in, columns);
        double squares = 0;
#pragma omp simd reduction(+ : squares)
        for (std::int64_t c = 0; c < columns; ++c) squares += (wide(in[c]) - mean) * (wide(in[c]) - mean);
        const double s = std::sqrt(squares / static_cast<double>(columns - 1)), inverse = 1 / (s + epsilon);
        deviation.as<A>()[r] = static_cast<A>(s);
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c)
          out[c] = static_cast<T>(static_cast<A>((wide(in[c]) - mean) * inverse));
      }
    });
  });
}

void CpuBackend::standardize_rows_backward(ConstView y, ConstView deviation, ConstView dy, double epsilon, View dx,
                                           Stream) {
  assert(y.dtype == dx.dtype && dy.dtype == dx.dtype && y.shape == dx.shape);
  const std::int64_t columns = dx.shape.last();
  dispatch_floating("standardize_rows_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    parallel_for(dx.shape.rows(), 3 * columns, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T *const out = y.as<T>() + r * columns, *const dout = dy.as<T>() + r * columns;
        T* const din = dx.as<T>() + r * columns;
        const double mean = mean_of(dout, columns);
        double dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t c = 0; c < columns; ++c) dot += wide(out[c]) * wide(dout[c]);
        const auto s = static_cast<double>(deviation.as<A>()[r]);
        const double inverse = 1 / (s + epsilon), along = s > 0 ? dot / (static_cast<double>(columns - 1) * s) : 0;
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) {
          din[c] = static_cast<T>(static_cast<A>((wide(dout[c]) - mean) * inverse - wide(out[c]) * along));
        }
      }
    });
  });
}

void CpuBackend::pearson_loss(ConstView x, ConstView y, bool by_columns, double epsilon, View loss, View gradient,
                              Stream) {
  assert(x.dtype == y.dtype && x.shape == y.shape);
  assert(!gradient || (gradient.dtype == x.dtype && gradient.shape == x.shape));
  std::vector<double> losses(static_cast<std::size_t>(by_columns ? x.shape.last() : x.shape.rows()));
  dispatch_floating("pearson_loss", x.dtype, [&]<typename T>(std::type_identity<T>) {
    by_columns ? pearson_columns<T>(x, y, epsilon, losses.data(), gradient)
               : pearson_rows<T>(x, y, epsilon, losses.data(), gradient);
    double total = 0;
    for (double value : losses) total += value;
    loss.as<Accumulator<T>>()[0] = static_cast<Accumulator<T>>(total / static_cast<double>(losses.size()));
  });
}

}  // namespace retort::kernels
