// Rows less their mean: standardisation, and the Pearson correlation of rows (one warp each) or columns (eight a
// block). Means and sums are f64, so that a constant row is seen as one.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/common.h"
#include "kernels/cuda/rows.h"
#include "kernels/logit_math.h"

namespace retort::kernels {
namespace {

template <typename T>
__device__ double wide(T x) {
  return static_cast<double>(static_cast<Accumulation<T>>(x));
}
template <typename T>
__device__ T narrow_wide(double x) {
  return narrow<T>(static_cast<Accumulation<T>>(x));
}

template <typename T>
__device__ double row_mean(const T* x, std::int64_t columns) {
  double sum = 0;
  for_columns(columns, [&](std::int64_t c) { sum += wide(x[c]); });
  return warp_sum(sum) / static_cast<double>(columns);
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    standardize_rows_kernel(const T* x, double epsilon, T* y, Accumulation<T>* deviation, std::int64_t rows,
                            std::int64_t columns) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  x += row * columns;
  y += row * columns;
  const double mean = row_mean(x, columns);
  double squares = 0;
  for_columns(columns, [&](std::int64_t c) { squares += (wide(x[c]) - mean) * (wide(x[c]) - mean); });
  const double s = std::sqrt(warp_sum(squares) / static_cast<double>(columns - 1)), inverse = 1 / (s + epsilon);
  for_columns(columns, [&](std::int64_t c) { y[c] = narrow_wide<T>((wide(x[c]) - mean) * inverse); });
  if (threadIdx.x % 32 == 0) deviation[row] = static_cast<Accumulation<T>>(s);
}

// dx = (dy - mean dy) / (s + epsilon) - y (y dy) / ((C - 1) s).
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    standardize_rows_backward_kernel(const T* y, const Accumulation<T>* deviation, const T* dy, double epsilon, T* dx,
                                     std::int64_t rows, std::int64_t columns) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  y += row * columns;
  dy += row * columns;
  dx += row * columns;
  const double mean = row_mean(dy, columns);
  double dot = 0;
  for_columns(columns, [&](std::int64_t c) { dot += wide(y[c]) * wide(dy[c]); });
  dot = warp_sum(dot);
  const double s = wide(deviation[row]), inverse = 1 / (s + epsilon);
  const double along = s > 0 ? dot / (static_cast<double>(columns - 1) * s) : 0;
  for_columns(columns,
              [&](std::int64_t c) { dx[c] = narrow_wide<T>((wide(dy[c]) - mean) * inverse - wide(y[c]) * along); });
}

// Each row's 1 - correlation, and `factor` times its gradient where `gradient` is not null.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    pearson_rows_kernel(const T* x, const T* y, double epsilon, double factor, double* losses, T* gradient,
                        std::int64_t rows, std::int64_t columns) {
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  x += row * columns;
  y += row * columns;
  const double mean_x = row_mean(x, columns), mean_y = row_mean(y, columns);
  double aa = 0, bb = 0, ab = 0;
  for_columns(columns, [&](std::int64_t c) {
    const double a = wide(x[c]) - mean_x, b = wide(y[c]) - mean_y;
    aa += a * a;
    bb += b * b;
    ab += a * b;
  });
  const Correlation correlation(warp_sum(aa), warp_sum(bb), warp_sum(ab), epsilon);
  if (threadIdx.x % 32 == 0) losses[row] = 1 - correlation.value;
  if (gradient == nullptr) return;
  gradient += row * columns;
  for_columns(columns, [&](std::int64_t c) {
    const double a = wide(x[c]) - mean_x, b = wide(y[c]) - mean_y;
    gradient[c] = narrow_wide<T>(factor * (correlation.along_a * a - correlation.along_b * b));
  });
}

// Few columns and many rows a block: batches are short, and this way there are enough blocks.
constexpr unsigned kTileColumns = 8, kTileRows = kBlockThreads / kTileColumns;

// Sums over the threads of a block that share a column, for all of them.
template <int N>
__device__ void sum_over_column(double (&x)[N], double* shared) {
  sum_over_rows(x, shared);
  __syncthreads();
  for (int k = 0; k < N; ++k) x[k] = shared[k * kBlockThreads + threadIdx.x];
}

// The same of columns; a block of [kTileRows, kTileColumns] threads has kTileColumns of them.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    pearson_columns_kernel(const T* x, const T* y, double epsilon, double factor, double* losses, T* gradient,
                           std::int64_t rows, std::int64_t columns) {
  RETORT_SHARED(double, shared, 3 * kBlockThreads);
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kTileColumns + threadIdx.x;
  // Threads beyond the last column have no rows, but take part in the sums.
  const std::int64_t last = column < columns ? rows : 0;
  double mean[2] = {};
  for (std::int64_t row = threadIdx.y; row < last; row += kTileRows) {
    mean[0] += wide(x[row * columns + column]);
    mean[1] += wide(y[row * columns + column]);
  }
  sum_over_column(mean, shared);
  for (double& m : mean) m /= static_cast<double>(rows);
  double products[3] = {};
  for (std::int64_t row = threadIdx.y; row < last; row += kTileRows) {
    const double a = wide(x[row * columns + column]) - mean[0], b = wide(y[row * columns + column]) - mean[1];
    products[0] += a * a;
    products[1] += b * b;
    products[2] += a * b;
  }
  sum_over_column(products, shared);
  const Correlation correlation(products[0], products[1], products[2], epsilon);
  if (threadIdx.y == 0 && column < columns) losses[column] = 1 - correlation.value;
  if (gradient == nullptr) return;
  for (std::int64_t row = threadIdx.y; row < last; row += kTileRows) {
    const double a = wide(x[row * columns + column]) - mean[0], b = wide(y[row * columns + column]) - mean[1];
    gradient[row * columns + column] = narrow_wide<T>(factor * (correlation.along_a * a - correlation.along_b * b));
  }
}

}  // namespace

void CudaKernels::standardize_rows(ConstView x, double epsilon, View y, View deviation, Stream stream) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  for_floating(x.dtype, [&]<typename T>() {
    launch(standardize_rows_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, x.as<T>(), epsilon, y.as<T>(),
           deviation.as<Accumulation<T>>(), rows, columns);
  });
}

void CudaKernels::standardize_rows_backward(ConstView y, ConstView deviation, ConstView dy, double epsilon, View dx,
                                            Stream stream) {
  const std::int64_t rows = y.shape.rows(), columns = y.shape.last();
  for_floating(y.dtype, [&]<typename T>() {
    launch(standardize_rows_backward_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, y.as<T>(),
           deviation.as<Accumulation<T>>(), dy.as<T>(), epsilon, dx.as<T>(), rows, columns);
  });
}

void CudaKernels::pearson_loss(ConstView x, ConstView y, bool by_columns, double epsilon, View loss, View gradient,
                               Stream stream) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  const std::int64_t lines = by_columns ? columns : rows;
  const double factor = 1 / static_cast<double>(lines);
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    const Workspace<double> losses(*this, lines, stream);
    if (by_columns) {
      launch(pearson_columns_kernel<T>, ceil_div(columns, kTileColumns), dim3(kTileColumns, kTileRows), 0, stream,
             x.as<T>(), y.as<T>(), epsilon, factor, losses.get(), gradient.as<T>(), rows, columns);
    } else {
      launch(pearson_rows_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, x.as<T>(), y.as<T>(), epsilon,
             factor, losses.get(), gradient.as<T>(), rows, columns);
    }
    launch(sum_small_kernel<double, A, 1, false>, 1, kBlockThreads, 0, stream, losses.get(), lines, factor,
           loss.as<A>());
  });
}

}  // namespace retort::kernels
