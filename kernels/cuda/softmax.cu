// Softmax, log-softmax and L2 normalisation of rows, and their backwards.
#include "kernels/cuda/common.h"
#include "kernels/cuda/rows.h"

namespace retort::kernels {
namespace {

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    softmax_kernel(const T* x, T* y, std::int64_t rows, std::int64_t columns, bool logarithm) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  x += row * columns;
  y += row * columns;
  const RowExponentials<A> e = row_exponentials(x, columns);
  if (logarithm) {
    const A log_sum = std::log(e.sum);
    for_columns(columns, [&](std::int64_t c) { y[c] = narrow<T>((static_cast<A>(x[c]) - e.largest) - log_sum); });
  } else {
    const A inverse = A(1) / e.sum;
    for_columns(columns,
                [&](std::int64_t c) { y[c] = narrow<T>(std::exp(static_cast<A>(x[c]) - e.largest) * inverse); });
  }
}

// Softmax: dx = y (dy - sum(y dy)). Log-softmax: dx = dy - exp(y) sum(dy).
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    softmax_backward_kernel(const T* y, const T* dy, T* dx, std::int64_t rows, std::int64_t columns, bool logarithm) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  y += row * columns;
  dy += row * columns;
  dx += row * columns;
  A sum = 0;
  for_columns(columns, [&](std::int64_t c) {
    sum += logarithm ? static_cast<A>(dy[c]) : static_cast<A>(y[c]) * static_cast<A>(dy[c]);
  });
  sum = warp_sum(sum);
  for_columns(columns, [&](std::int64_t c) {
    const A value = static_cast<A>(y[c]), gradient = static_cast<A>(dy[c]);
    dx[c] = narrow<T>(logarithm ? gradient - std::exp(value) * sum : value * (gradient - sum));
  });
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    l2_normalize_kernel(const T* x, Accumulation<T> epsilon, T* y, Accumulation<T>* norm, std::int64_t rows,
                        std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  x += row * columns;
  y += row * columns;
  A squares = 0;
  for_columns(columns, [&](std::int64_t c) { squares += static_cast<A>(x[c]) * static_cast<A>(x[c]); });
  const A length = std::sqrt(warp_sum(squares));
  const A inverse = A(1) / (length < epsilon ? epsilon : length);
  for_columns(columns, [&](std::int64_t c) { y[c] = narrow<T>(static_cast<A>(x[c]) * inverse); });
  if (threadIdx.x % 32 == 0) norm[row] = length;
}

// dx = (dy - y (y dy)) / |x|, or dy / epsilon where |x| is below epsilon.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    l2_normalize_backward_kernel(const T* y, const Accumulation<T>* norm, const T* dy, Accumulation<T> epsilon, T* dx,
                                 std::int64_t rows, std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  y += row * columns;
  dy += row * columns;
  dx += row * columns;
  A dot = 0;
  for_columns(columns, [&](std::int64_t c) { dot += static_cast<A>(y[c]) * static_cast<A>(dy[c]); });
  dot = warp_sum(dot);
  const A length = norm[row];
  const bool clamped = length < epsilon;
  const A inverse = A(1) / (clamped ? epsilon : length);
  for_columns(columns, [&](std::int64_t c) {
    const A along = clamped ? A(0) : static_cast<A>(y[c]) * dot;
    dx[c] = narrow<T>((static_cast<A>(dy[c]) - along) * inverse);
  });
}

void softmax_rows(ConstView x, View y, bool logarithm, Stream stream) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  for_floating(x.dtype, [&]<typename T>() {
    launch(softmax_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, x.as<T>(), y.as<T>(), rows, columns,
           logarithm);
  });
}

void softmax_rows_backward(ConstView y, ConstView dy, View dx, bool logarithm, Stream stream) {
  const std::int64_t rows = y.shape.rows(), columns = y.shape.last();
  for_floating(y.dtype, [&]<typename T>() {
    launch(softmax_backward_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, y.as<T>(), dy.as<T>(), dx.as<T>(),
           rows, columns, logarithm);
  });
}

}  // namespace

void CudaKernels::softmax(ConstView x, View y, Stream stream) {
  softmax_rows(x, y, false, stream);
}
void CudaKernels::log_softmax(ConstView x, View y, Stream stream) {
  softmax_rows(x, y, true, stream);
}
void CudaKernels::softmax_backward(ConstView y, ConstView dy, View dx, Stream stream) {
  softmax_rows_backward(y, dy, dx, false, stream);
}
void CudaKernels::log_softmax_backward(ConstView y, ConstView dy, View dx, Stream stream) {
  softmax_rows_backward(y, dy, dx, true, stream);
}

void CudaKernels::l2_normalize(ConstView x, double epsilon, View y, View norm, Stream stream) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    launch(l2_normalize_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, x.as<T>(), static_cast<A>(epsilon),
           y.as<T>(), norm.as<A>(), rows, columns);
  });
}

void CudaKernels::l2_normalize_backward(ConstView y, ConstView norm, ConstView dy, double epsilon, View dx,
                                        Stream stream) {
  const std::int64_t rows = y.shape.rows(), columns = y.shape.last();
  for_floating(y.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    launch(l2_normalize_backward_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, y.as<T>(), norm.as<A>(),
           dy.as<T>(), static_cast<A>(epsilon), dx.as<T>(), rows, columns);
  });
}

}  // namespace retort::kernels
