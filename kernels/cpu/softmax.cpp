// Row-wise functions of [M, C]. Sums run in f64: rows are short beside the activations, and it costs nothing there.
#include <cassert>
#include <cmath>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rows.h"

namespace retort::kernels {
namespace cpu {
namespace {

// f(row, offset of its first element) over the rows of a matrix.
template <typename F>
void for_each_row(const Shape& shape, const F& f) {
  constexpr std::int64_t kExpCost = 8;  // most rows are made of exponentials
  const std::int64_t columns = shape.last();
  parallel_for(shape.rows(), columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) f(row, row * columns);
  });
}

template <typename T>
double dot(const T* a, const T* b, std::int64_t columns) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t c = 0; c < columns; ++c) total += static_cast<double>(load(a[c])) * static_cast<double>(load(b[c]));
  return total;
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::softmax(ConstView x, View y, Stream) {
  assert(x.dtype == y.dtype && x.shape == y.shape);
  const std::int64_t columns = x.shape.last();
  dispatch_floating("softmax", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_row(x.shape, [&](std::int64_t, std::int64_t at) {
      const T* const in = x.as<T>() + at;
      T* const out = y.as<T>() + at;
      const RowExponentials<T> row(in, columns);
      const A factor = static_cast<A>(1 / row.sum);
      for (std::int64_t c = 0; c < columns; ++c) out[c] = static_cast<T>(std::exp(load(in[c]) - row.max) * factor);
    });
  });
}

void CpuBackend::softmax_backward(ConstView y, ConstView dy, View dx, Stream) {
  assert(y.dtype == dx.dtype && dy.dtype == dx.dtype && y.shape == dx.shape);
  const std::int64_t columns = dx.shape.last();
  dispatch_floating("softmax_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_row(dx.shape, [&](std::int64_t, std::int64_t at) {
      const T *const out = y.as<T>() + at, *const dout = dy.as<T>() + at;
      T* const din = dx.as<T>() + at;
      const A common = static_cast<A>(dot(out, dout, columns));
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) din[c] = static_cast<T>(load(out[c]) * (load(dout[c]) - common));
    });
  });
}

void CpuBackend::log_softmax(ConstView x, View y, Stream) {
  assert(x.dtype == y.dtype && x.shape == y.shape);
  const std::int64_t columns = x.shape.last();
  dispatch_floating("log_softmax", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_row(x.shape, [&](std::int64_t, std::int64_t at) {
      const T* const in = x.as<T>() + at;
      T* const out = y.as<T>() + at;
      const RowExponentials<T> row(in, columns);
      const A log_sum = static_cast<A>(std::log(row.sum));
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) out[c] = static_cast<T>((load(in[c]) - row.max) - log_sum);
    });
  });
}

void CpuBackend::log_softmax_backward(ConstView y, ConstView dy, View dx, Stream) {
  assert(y.dtype == dx.dtype && dy.dtype == dx.dtype && y.shape == dx.shape);
  const std::int64_t columns = dx.shape.last();
  dispatch_floating("log_softmax_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_row(dx.shape, [&](std::int64_t, std::int64_t at) {
      const T *const out = y.as<T>() + at, *const dout = dy.as<T>() + at;
      T* const din = dx.as<T>() + at;
      double total = 0;
#pragma omp simd reduction(+ : total)
      for (std::int64_t c = 0; c < columns; ++c) total += static_cast<double>(load(dout[c]));
      const A sum = static_cast<A>(total);
      for (std::int64_t c = 0; c < columns; ++c) din[c] = static_cast<T>(load(dout[c]) - std::exp(load(out[c])) * sum);
    });
  });
}

void CpuBackend::l2_normalize(ConstView x, double epsilon, View y, View norm, Stream) {
  assert(x.dtype == y.dtype && x.shape == y.shape && norm.numel() == x.shape.rows());
  const std::int64_t columns = x.shape.last();
  dispatch_floating("l2_normalize", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_row(x.shape, [&](std::int64_t row, std::int64_t at) {
      const T* const in = x.as<T>() + at;
      T* const out = y.as<T>() + at;
      const double length = std::sqrt(dot(in, in, columns));
      const A factor = static_cast<A>(1 / (length < epsilon ? epsilon : length));
      norm.as<A>()[row] = static_cast<A>(length);
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) out[c] = static_cast<T>(load(in[c]) * factor);
    });
  });
}

void CpuBackend::l2_normalize_backward(ConstView y, ConstView norm, ConstView dy, double epsilon, View dx, Stream) {
  assert(y.dtype == dx.dtype && dy.dtype == dx.dtype && y.shape == dx.shape);
  const std::int64_t columns = dx.shape.last();
  dispatch_floating("l2_normalize_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_row(dx.shape, [&](std::int64_t row, std::int64_t at) {
      const T *const out = y.as<T>() + at, *const dout = dy.as<T>() + at;
      T* const din = dx.as<T>() + at;
      const auto length = static_cast<double>(norm.as<A>()[row]);
      // Below epsilon the divisor is a constant.
      const bool clamped = length < epsilon;
      const A along = clamped ? A(0) : static_cast<A>(dot(out, dout, columns));
      const A factor = static_cast<A>(1 / (clamped ? epsilon : length));
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) {
        din[c] = static_cast<T>((load(dout[c]) - load(out[c]) * along) * factor);
      }
    });
  });
}

}  // namespace retort::kernels
