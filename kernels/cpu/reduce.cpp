#include <cassert>
#include <cmath>
#include <limits>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_tiles.h"

namespace retort::kernels {

using namespace cpu;

void CpuBackend::sum(ConstView x, double factor, View y, Stream) {
  dispatch_floating("sum", x.dtype, [&]<typename T>(std::type_identity<T>) {
    const T* const in = x.as<T>();
    const double total = ordered_sum(x.numel(), [=](std::int64_t begin, std::int64_t end) {
      double partial = 0;
#pragma omp simd reduction(+ : partial)
      for (std::int64_t i = begin; i < end; ++i) partial += static_cast<double>(load(in[i]));
      return partial;
    });
    y.as<Accumulator<T>>()[0] = static_cast<Accumulator<T>>(factor * total);
  });
}

void CpuBackend::broadcast(ConstView x, double factor, View y, Stream stream) {
  const double value = x.dtype == DType::f64 ? x.as<double>()[0] : static_cast<double>(x.as<float>()[0]);
  fill(y, factor * value, stream);
}

void CpuBackend::sum_rows(ConstView x, View y, Stream) {
  const RowTiles tiles(x.shape.rows(), x.shape.last());
  const std::int64_t channels = tiles.channels;
  dispatch_floating("sum_rows", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const T* const in = x.as<T>();
    const auto partial = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(tiles.row_tiles * channels));
    parallel_for(tiles.count(), tiles.work(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Tile tile = tiles[i];
        A sums[kMaxLanes] = {};
        for_wide_rows(
            tile,
            [&, stride = tile.stride, lanes = tile.lanes](std::int64_t offset) {
              const T* const row = in + offset;
#pragma omp simd
              for (std::int64_t j = 0; j < lanes; ++j) {
                sums[j] +=
                    (load(row[j]) + load(row[stride + j])) + (load(row[2 * stride + j]) + load(row[3 * stride + j]));
              }
            },
            [&](std::int64_t offset, std::int64_t lanes) {
              const T* const row = in + offset;
#pragma omp simd
              for (std::int64_t j = 0; j < lanes; ++j) sums[j] += load(row[j]);
            });
        double* const out = partial.get() + tile.index * channels + tile.channel;
        for (std::int64_t c = 0; c < tile.width; ++c) out[c] = fold_lanes(tile, sums, c);
      }
    });
    for (std::int64_t c = 0; c < channels; ++c) {
      double total = 0;
      for (std::int64_t t = 0; t < tiles.row_tiles; ++t) total += partial[t * channels + c];
      y.as<A>()[c] = static_cast<A>(total);
    }
  });
}

void CpuBackend::norm(ConstView x, View y, Stream) {
  assert(y.dtype == DType::f64);
  dispatch_floating("norm", x.dtype, [&]<typename T>(std::type_identity<T>) {
    const T* const in = x.as<T>();
    const double total = ordered_sum(x.numel(), [=](std::int64_t begin, std::int64_t end) {
      double partial = 0;
#pragma omp simd reduction(+ : partial)
      for (std::int64_t i = begin; i < end; ++i) {
        const auto v = static_cast<double>(load(in[i]));
        partial += v * v;
      }
      return partial;
    });
    y.as<double>()[0] = std::sqrt(total);
  });
}

void CpuBackend::accumulate_nonfinite(ConstView x, View y, Stream) {
  dispatch_floating("accumulate_nonfinite", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const T* const in = x.as<T>();
    const double bad = ordered_sum(x.numel(), [=](std::int64_t begin, std::int64_t end) {
      std::int32_t count = 0;
#pragma omp simd reduction(+ : count)
      for (std::int64_t i = begin; i < end; ++i)
        count += std::abs(load(in[i])) <= std::numeric_limits<A>::max() ? 0 : 1;
      return static_cast<double>(count);
    });
    y.as<std::int32_t>()[0] += static_cast<std::int32_t>(bad);
  });
}

}  // namespace retort::kernels
