// Label-smoothed cross-entropy, its backward, and the running metrics.
#include "kernels/cuda/common.h"
#include "kernels/cuda/rows.h"

namespace retort::kernels {
namespace {

// Each row's loss; with q = (1 - smoothing) onehot + smoothing / C the loss is
// (1 - smoothing) (lse - x_label) + smoothing (lse - mean x), here with x and lse less the row's largest value.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    cross_entropy_kernel(const T* logits, const std::int32_t* labels, Accumulation<T> smoothing,
                         Accumulation<T>* row_loss, Accumulation<T>* log_sum_exp, std::int64_t rows,
                         std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  logits += row * columns;
  const RowExponentials<A> e = row_exponentials(logits, columns);
  const A log_sum = std::log(e.sum);
  A below = 0;
  if (smoothing != A(0)) {
    for_columns(columns, [&](std::int64_t c) { below += static_cast<A>(logits[c]) - e.largest; });
    below = warp_sum(below) / static_cast<A>(columns);
  }
  if (threadIdx.x % 32 != 0) return;
  const std::int32_t label = labels[row];
  // A label that is no class poisons the loss instead of reading outside the row.
  const A of_label = label >= 0 && label < columns ? static_cast<A>(logits[label]) - e.largest : static_cast<A>(NAN);
  A loss = (A(1) - smoothing) * (log_sum - of_label);
  if (smoothing != A(0)) loss += smoothing * (log_sum - below);
  row_loss[row] = loss;
  log_sum_exp[row] = log_sum;  // less the largest value: f32 has few digits above 1e4
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    cross_entropy_backward_kernel(const T* logits, const std::int32_t* labels, const Accumulation<T>* log_sum_exp,
                                  const Accumulation<T>* dloss, Accumulation<T> smoothing, T* dlogits,
                                  std::int64_t rows, std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  logits += row * columns;
  dlogits += row * columns;
  const A factor = dloss[0] / static_cast<A>(rows), log_sum = log_sum_exp[row];
  const A largest = row_largest(logits, columns);
  const A spread = smoothing / static_cast<A>(columns);
  const std::int32_t label = labels[row];
  for_columns(columns, [&](std::int64_t c) {
    const A q = c == label ? (A(1) - smoothing) + spread : spread;
    dlogits[c] = narrow<T>(factor * (std::exp((static_cast<A>(logits[c]) - largest) - log_sum) - q));
  });
}

constexpr int kMetrics = 4;

// Each row's {cross-entropy, ranks first, is among the five largest, 1}.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    row_metrics_kernel(const T* logits, const std::int32_t* labels, double* out, std::int64_t rows,
                       std::int64_t columns) {
  using A = Accumulation<T>;
  const std::int64_t row = row_of_warp();
  if (row >= rows) return;
  logits += row * columns;
  const RowExponentials<A> e = row_exponentials(logits, columns);
  const std::int32_t label = labels[row];
  const bool valid = label >= 0 && label < columns;
  const A of_label = valid ? static_cast<A>(logits[label]) : static_cast<A>(NAN);
  int before = 0, bad = valid ? 0 : 1;
  for_columns(columns, [&](std::int64_t c) {
    const A x = static_cast<A>(logits[c]);
    if (!std::isfinite(x)) bad = 1;
    if (x > of_label || (x == of_label && c < label)) ++before;
  });
  before = warp_sum(before);
  bad = warp_sum(bad);
  if (threadIdx.x % 32 != 0) return;
  out += row * kMetrics;
  out[0] = static_cast<double>(std::log(e.sum)) - (static_cast<double>(of_label) - static_cast<double>(e.largest));
  out[1] = bad == 0 && before == 0 ? 1 : 0;
  out[2] = bad == 0 && before < 5 ? 1 : 0;
  out[3] = 1;
}

}  // namespace

void CudaKernels::cross_entropy(ConstView logits, ConstView labels, double smoothing, View loss, View log_sum_exp,
                                Stream stream) {
  const std::int64_t rows = logits.shape.rows(), columns = logits.shape.last();
  for_floating(logits.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    const Workspace<A> row_loss(*this, rows, stream);
    launch(cross_entropy_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, logits.as<T>(),
           labels.as<std::int32_t>(), static_cast<A>(smoothing), row_loss.get(), log_sum_exp.as<A>(), rows, columns);
    launch(sum_small_kernel<A, A, 1, false>, 1, kBlockThreads, 0, stream, row_loss.get(), rows,
           1.0 / static_cast<double>(rows), loss.as<A>());
  });
}

void CudaKernels::cross_entropy_backward(ConstView logits, ConstView labels, ConstView log_sum_exp, ConstView dloss,
                                         double smoothing, View dlogits, Stream stream) {
  const std::int64_t rows = logits.shape.rows(), columns = logits.shape.last();
  for_floating(logits.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    launch(cross_entropy_backward_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, logits.as<T>(),
           labels.as<std::int32_t>(), log_sum_exp.as<A>(), dloss.as<A>(), static_cast<A>(smoothing), dlogits.as<T>(),
           rows, columns);
  });
}

void CudaKernels::accumulate_metrics(ConstView logits, ConstView labels, View metrics, Stream stream) {
  const std::int64_t rows = logits.shape.rows(), columns = logits.shape.last();
  for_floating(logits.dtype, [&]<typename T>() {
    const Workspace<double> values(*this, rows * kMetrics, stream);
    launch(row_metrics_kernel<T>, grid_for_rows(rows), kBlockThreads, 0, stream, logits.as<T>(),
           labels.as<std::int32_t>(), values.get(), rows, columns);
    launch(sum_small_kernel<double, double, kMetrics, true>, 1, kBlockThreads, 0, stream, values.get(), rows, 1.0,
           metrics.as<double>());
  });
}

}  // namespace retort::kernels
