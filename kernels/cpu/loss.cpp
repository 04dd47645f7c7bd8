// Cross-entropy and the metrics that go with it. The sum over rows runs in f64 and in the order of the rows.
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rows.h"

namespace retort::kernels {
namespace cpu {
namespace {

constexpr std::int64_t kExpCost = 8;  // of an exponential, in element operations

// Elements of a row that come before the label in the ranking, or `columns` where the row has no ranking.
template <typename T>
std::int64_t rank_of_label(const T* logits, std::int64_t label, std::int64_t columns) {
  using A = Accumulator<T>;
  const A own = load(logits[label]);
  std::int64_t before = 0;
  bool finite = true;
  for (std::int64_t c = 0; c < columns; ++c) {
    const A v = load(logits[c]);
    finite = finite && std::abs(v) <= std::numeric_limits<A>::max();
    before += v > own || (v == own && c < label) ? 1 : 0;
  }
  return finite ? before : columns;
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::cross_entropy(ConstView logits, ConstView labels, double smoothing, View loss, View log_sum_exp,
                               Stream) {
  assert(labels.dtype == DType::i32 && labels.numel() == logits.shape.rows());
  const std::int64_t rows = logits.shape.rows(), columns = logits.shape.last();
  const auto* const label = labels.as<std::int32_t>();
  std::vector<double> losses(static_cast<std::size_t>(rows));
  dispatch_floating("cross_entropy", logits.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    parallel_for(rows, columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        assert(label[r] >= 0 && label[r] < columns);
        const T* const x = logits.as<T>() + r * columns;
        const RowExponentials<T> row(x, columns);
        const auto max = static_cast<double>(row.max);
        // Everything relative to the maximum: the terms stay small, and nothing cancels.
        double value = std::log(row.sum) - (1 - smoothing) * (static_cast<double>(load(x[label[r]])) - max);
        if (smoothing != 0) {
          double below = 0;
          for (std::int64_t c = 0; c < columns; ++c) below += static_cast<double>(load(x[c])) - max;
          value -= smoothing / static_cast<double>(columns) * below;
        }
        losses[static_cast<std::size_t>(r)] = value;
        log_sum_exp.as<A>()[r] = static_cast<A>(std::log(row.sum));  // less the maximum: f32 has few digits above 1e4
      }
    });
    double total = 0;
    for (double value : losses) total += value;
    loss.as<A>()[0] = static_cast<A>(total / static_cast<double>(rows));
  });
}

void CpuBackend::cross_entropy_backward(ConstView logits, ConstView labels, ConstView log_sum_exp, ConstView dloss,
                                        double smoothing, View dlogits, Stream) {
  assert(logits.dtype == dlogits.dtype && logits.shape == dlogits.shape);
  const std::int64_t rows = logits.shape.rows(), columns = logits.shape.last();
  const auto* const label = labels.as<std::int32_t>();
  dispatch_floating("cross_entropy_backward", logits.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const A factor = static_cast<A>(static_cast<double>(dloss.as<A>()[0]) / static_cast<double>(rows));
    const A others = static_cast<A>(smoothing / static_cast<double>(columns));
    const A own = static_cast<A>(1 - smoothing + smoothing / static_cast<double>(columns));
    parallel_for(rows, columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* const x = logits.as<T>() + r * columns;
        T* const dx = dlogits.as<T>() + r * columns;
        const A max = largest_of(x, columns), log_sum = log_sum_exp.as<A>()[r];
        for (std::int64_t c = 0; c < columns; ++c) {
          const A q = c == label[r] ? own : others;
          dx[c] = static_cast<T>(factor * (std::exp((load(x[c]) - max) - log_sum) - q));
        }
      }
    });
  });
}

void CpuBackend::accumulate_metrics(ConstView logits, ConstView labels, View metrics, Stream) {
  assert(labels.dtype == DType::i32 && metrics.dtype == DType::f64 && metrics.numel() == 4);
  const std::int64_t rows = logits.shape.rows(), columns = logits.shape.last();
  const auto* const label = labels.as<std::int32_t>();
  struct Row {
    double loss;
    std::int64_t rank;
  };
  std::vector<Row> results(static_cast<std::size_t>(rows));
  dispatch_floating("accumulate_metrics", logits.dtype, [&]<typename T>(std::type_identity<T>) {
    parallel_for(rows, columns * kExpCost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* const x = logits.as<T>() + r * columns;
        const RowExponentials<T> row(x, columns);
        const double below = static_cast<double>(load(x[label[r]])) - static_cast<double>(row.max);
        results[static_cast<std::size_t>(r)] = {std::log(row.sum) - below, rank_of_label(x, label[r], columns)};
      }
    });
  });
  double loss = 0;
  std::int64_t first = 0, among_five = 0;
  for (const Row& row : results) {
    loss += row.loss;
    first += row.rank < 1 ? 1 : 0;
    // With fewer than five classes every ranked row counts, and an unranked one, at `columns`, still does not.
    among_five += row.rank < std::min<std::int64_t>(5, columns) ? 1 : 0;
  }
  double* const out = metrics.as<double>();
  out[0] += loss;
  out[1] += static_cast<double>(first);
  out[2] += static_cast<double>(among_five);
  out[3] += static_cast<double>(rows);
}

}  // namespace retort::kernels
