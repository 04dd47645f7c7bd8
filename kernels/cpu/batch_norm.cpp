// Batch normalisation, bound by memory: the forward reads x twice (statistics, then everything else in one pass), the
// backward passes over its inputs twice. Plain 256-bit stores reach the memory's speed here; streaming stores, 512-bit
// vectors and going through the tiles backwards the second time were tried and gained nothing.
#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_tiles.h"

namespace retort::kernels {
namespace cpu {
namespace {

// Two values per channel and tile, to be merged in tile order.
struct Partials {
  explicit Partials(const RowTiles& tiles)
      : channels(tiles.channels),
        values(std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(2 * tiles.row_tiles * channels))) {}
  double* first(std::int64_t row_tile) const { return values.get() + 2 * row_tile * channels; }
  double* second(std::int64_t row_tile) const { return first(row_tile) + channels; }

  std::int64_t channels;
  std::unique_ptr<double[]> values;
};

// Per channel, the tile's mean and its sum of squared deviations from it. The tile's first rows give a center, then the
// deviations d from it are summed. With both sum d and sum d² the choice of the center cancels exactly; it only decides
// how much of sum d² is cancelled. Even if these first rows were all that differ, that is a factor of rows / center
// rows, at most about 40: some 5 bits of f32, while typical data lose none.
template <typename T>
void tile_statistics(const T* x, const Tile& tile, const Partials& partials) {
  using A = Accumulator<T>;
  A sums[kMaxLanes] = {}, squares[kMaxLanes] = {}, centers[kMaxLanes];
  Tile first = tile;
  first.rows = std::min(tile.rows, 16 * tile.fold);
  for_wide_rows(
      first,
      [&, stride = tile.stride, lanes = tile.lanes](std::int64_t offset) {
        const T* const row = x + offset;
#pragma omp simd
        for (std::int64_t j = 0; j < lanes; ++j) {
          sums[j] += (load(row[j]) + load(row[stride + j])) + (load(row[2 * stride + j]) + load(row[3 * stride + j]));
        }
      },
      [&](std::int64_t offset, std::int64_t lanes) {
        const T* const row = x + offset;
#pragma omp simd
        for (std::int64_t j = 0; j < lanes; ++j) sums[j] += load(row[j]);
      });
  for (std::int64_t c = 0; c < tile.width; ++c) {
    const A center = static_cast<A>(fold_lanes(tile, sums, c) / static_cast<double>(first.rows));
    for (std::int64_t k = 0; k < tile.fold; ++k) centers[k * tile.width + c] = center;
  }
  std::fill(sums, sums + tile.lanes, A(0));
  for_wide_rows(
      tile,
      [&, stride = tile.stride, lanes = tile.lanes](std::int64_t offset) {
        const T* const row = x + offset;
#pragma omp simd
        for (std::int64_t j = 0; j < lanes; ++j) {
          const A d0 = load(row[j]) - centers[j], d1 = load(row[stride + j]) - centers[j];
          const A d2 = load(row[2 * stride + j]) - centers[j], d3 = load(row[3 * stride + j]) - centers[j];
          sums[j] += (d0 + d1) + (d2 + d3);
          squares[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
        }
      },
      [&](std::int64_t offset, std::int64_t lanes) {
        const T* const row = x + offset;
#pragma omp simd
        for (std::int64_t j = 0; j < lanes; ++j) {
          const A d = load(row[j]) - centers[j];
          sums[j] += d;
          squares[j] += d * d;
        }
      });
  const auto rows = static_cast<double>(tile.rows);
  double* const means = partials.first(tile.index) + tile.channel;
  double* const deviations = partials.second(tile.index) + tile.channel;
  for (std::int64_t c = 0; c < tile.width; ++c) {
    const double d = fold_lanes(tile, sums, c), d2 = fold_lanes(tile, squares, c);
    means[c] = static_cast<double>(centers[c]) + d / rows;
    deviations[c] = d2 - d * d / rows;
  }
}

// Mean and sum of squared deviations over all rows (Chan, Golub, LeVeque 1983).
void merge_statistics(const RowTiles& tiles, const Partials& partials, double* mean, double* deviation) {
  const auto rows = static_cast<double>(tiles.rows);
  const auto tile_rows = [&](std::int64_t t) { return static_cast<double>(tiles[t * tiles.blocks].rows); };
  std::fill(mean, mean + tiles.channels, 0.0);
  std::fill(deviation, deviation + tiles.channels, 0.0);
  for (std::int64_t t = 0; t < tiles.row_tiles; ++t) {
    const double share = tile_rows(t) / rows;
    const double* const means = partials.first(t);
#pragma omp simd
    for (std::int64_t c = 0; c < tiles.channels; ++c) mean[c] += share * means[c];
  }
  for (std::int64_t t = 0; t < tiles.row_tiles; ++t) {
    const double n = tile_rows(t);
    const double *const means = partials.first(t), *const deviations = partials.second(t);
#pragma omp simd
    for (std::int64_t c = 0; c < tiles.channels; ++c) {
      const double d = means[c] - mean[c];
      deviation[c] += deviations[c] + n * d * d;
    }
  }
}

// y = act((x - mean) * scale + beta + residual)
template <typename T, Activation act, bool has_residual>
void normalize_tile(const T* x, const T* residual, T* y, const Tile& tile, const Accumulator<T>* mean,
                    const Accumulator<T>* scale, const Accumulator<T>* beta) {
  using A = Accumulator<T>;
  A means[kMaxLanes], scales[kMaxLanes], betas[kMaxLanes];
  spread_lanes(tile, mean, means);
  spread_lanes(tile, scale, scales);
  spread_lanes(tile, beta, betas);
  const auto wide_row = [&](std::int64_t offset, std::int64_t lanes) {
#pragma omp simd
    for (std::int64_t j = 0; j < lanes; ++j) {
      A v = (load(x[offset + j]) - means[j]) * scales[j] + betas[j];
      if constexpr (has_residual) v += load(residual[offset + j]);
      y[offset + j] = static_cast<T>(activate<act>(v));
    }
  };
  for_wide_rows(
      tile,
      [&](std::int64_t offset) {
        for (std::int64_t k = 0; k < 4; ++k) wide_row(offset + k * tile.stride, tile.lanes);
      },
      wide_row);
}

template <typename T>
void normalize(ConstView x, ConstView residual, View y, const RowTiles& tiles, const Accumulator<T>* mean,
               const Accumulator<T>* scale, const Accumulator<T>* beta, Activation act) {
  dispatch_activation(act, [&](auto kind) {
    const auto run = [&](auto has_residual) {
      parallel_for(tiles.count(), tiles.work(), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          normalize_tile<T, decltype(kind)::value, decltype(has_residual)::value>(
              x.as<T>(), residual.as<T>(), y.as<T>(), tiles[i], mean, scale, beta);
        }
      });
    };
    residual ? run(std::true_type{}) : run(std::false_type{});
  });
}

// Per channel, the tile's sums of g and of g (x - mean), where g is dy behind the activation; g is kept on request.
template <typename T, Activation act, bool keep>
void tile_gradient_sums(const T* x, const T* y, const T* dy, T* kept, const Tile& tile, const Accumulator<T>* mean,
                        const Partials& partials) {
  using A = Accumulator<T>;
  A sums[kMaxLanes] = {}, products[kMaxLanes] = {}, means[kMaxLanes];
  spread_lanes(tile, mean, means);
  const auto gradient = [=](std::int64_t i) {
    const A g = activation_gradient<act>(act == Activation::identity ? A(0) : load(y[i]), load(dy[i]));
    if constexpr (keep) kept[i] = static_cast<T>(g);
    return g;
  };
  for_wide_rows(
      tile,
      [&, stride = tile.stride, lanes = tile.lanes](std::int64_t offset) {
#pragma omp simd
        for (std::int64_t j = 0; j < lanes; ++j) {
          const std::int64_t i0 = offset + j, i1 = i0 + stride, i2 = i1 + stride, i3 = i2 + stride;
          const A g0 = gradient(i0), g1 = gradient(i1), g2 = gradient(i2), g3 = gradient(i3);
          sums[j] += (g0 + g1) + (g2 + g3);
          products[j] += (g0 * (load(x[i0]) - means[j]) + g1 * (load(x[i1]) - means[j])) +
                         (g2 * (load(x[i2]) - means[j]) + g3 * (load(x[i3]) - means[j]));
        }
      },
      [&](std::int64_t offset, std::int64_t lanes) {
#pragma omp simd
        for (std::int64_t j = 0; j < lanes; ++j) {
          const A g = gradient(offset + j);
          sums[j] += g;
          products[j] += g * (load(x[offset + j]) - means[j]);
        }
      });
  double* const out_sums = partials.first(tile.index) + tile.channel;
  double* const out_products = partials.second(tile.index) + tile.channel;
  for (std::int64_t c = 0; c < tile.width; ++c) {
    out_sums[c] = fold_lanes(tile, sums, c);
    out_products[c] = fold_lanes(tile, products, c);
  }
}

// dx = a g + b (x - mean) + c, per channel
template <typename A>
struct InputGradient {
  std::vector<A> a, b, c;
};

template <typename T, Activation act>
void tile_input_gradient(const T* x, const T* y, const T* dy, T* dx, const Tile& tile, const Accumulator<T>* mean,
                         const InputGradient<Accumulator<T>>& coefficients) {
  using A = Accumulator<T>;
  A means[kMaxLanes], as[kMaxLanes], bs[kMaxLanes], cs[kMaxLanes];
  spread_lanes(tile, mean, means);
  spread_lanes(tile, coefficients.a.data(), as);
  spread_lanes(tile, coefficients.b.data(), bs);
  spread_lanes(tile, coefficients.c.data(), cs);
  const auto wide_row = [&](std::int64_t offset, std::int64_t lanes) {
#pragma omp simd
    for (std::int64_t j = 0; j < lanes; ++j) {
      const std::int64_t i = offset + j;
      const A g = activation_gradient<act>(act == Activation::identity ? A(0) : load(y[i]), load(dy[i]));
      dx[i] = static_cast<T>(as[j] * g + (bs[j] * (load(x[i]) - means[j]) + cs[j]));
    }
  };
  for_wide_rows(
      tile,
      [&](std::int64_t offset) {
        for (std::int64_t k = 0; k < 4; ++k) wide_row(offset + k * tile.stride, tile.lanes);
      },
      wide_row);
}

template <typename T>
void gradient_sums(ConstView x, ConstView y, ConstView dy, View kept, const RowTiles& tiles, const Accumulator<T>* mean,
                   Activation act, const Partials& partials) {
  dispatch_activation(act, [&](auto kind) {
    const auto run = [&](auto keep) {
      parallel_for(tiles.count(), tiles.work(), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          tile_gradient_sums<T, decltype(kind)::value, decltype(keep)::value>(x.as<T>(), y.as<T>(), dy.as<T>(),
                                                                              kept.as<T>(), tiles[i], mean, partials);
        }
      });
    };
    kept ? run(std::true_type{}) : run(std::false_type{});
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::batch_norm_training(ConstView x, ConstView residual, ConstView gamma, ConstView beta, double momentum,
                                     double epsilon, Activation act, View y, View mean, View invstd, View running_mean,
                                     View running_var, View counter, Stream) {
  assert(x.numel() == y.numel() && x.dtype == y.dtype);
  const RowTiles tiles(x.shape.rows(), x.shape.last());
  const auto channels = static_cast<std::size_t>(tiles.channels);
  dispatch_floating("batch_norm_training", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const Partials partials(tiles);
    parallel_for(tiles.count(), tiles.work(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) tile_statistics(x.as<T>(), tiles[i], partials);
    });
    std::vector<double> means(channels), deviations(channels);
    merge_statistics(tiles, partials, means.data(), deviations.data());

    const auto rows = static_cast<double>(tiles.rows);
    std::vector<A> scales(channels);
    for (std::size_t c = 0; c < channels; ++c) {
      const double inverse = 1 / std::sqrt(deviations[c] / rows + epsilon);
      mean.as<A>()[c] = static_cast<A>(means[c]);
      invstd.as<A>()[c] = static_cast<A>(inverse);
      scales[c] = static_cast<A>(static_cast<double>(gamma.as<A>()[c]) * inverse);
      const auto follow = [momentum](A& running, double batch) {
        const auto old = static_cast<double>(running);
        running = static_cast<A>(old + momentum * (batch - old));
      };
      follow(running_mean.as<A>()[c], means[c]);
      // A single row has no unbiased variance; zero keeps the running value finite.
      follow(running_var.as<A>()[c], deviations[c] / std::max(rows - 1, 1.0));
    }
    counter.as<std::int32_t>()[0] += 1;
    normalize<T>(x, residual, y, tiles, mean.as<A>(), scales.data(), beta.as<A>(), act);
  });
}

void CpuBackend::batch_norm_inference(ConstView x, ConstView residual, ConstView gamma, ConstView beta,
                                      ConstView running_mean, ConstView running_var, double epsilon, Activation act,
                                      View y, Stream) {
  assert(x.numel() == y.numel() && x.dtype == y.dtype);
  const RowTiles tiles(x.shape.rows(), x.shape.last());
  dispatch_floating("batch_norm_inference", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    std::vector<A> scales(static_cast<std::size_t>(tiles.channels));
    for (std::size_t c = 0; c < scales.size(); ++c) {
      const auto variance = static_cast<double>(running_var.as<A>()[c]);
      scales[c] = static_cast<A>(static_cast<double>(gamma.as<A>()[c]) / std::sqrt(variance + epsilon));
    }
    normalize<T>(x, residual, y, tiles, running_mean.as<A>(), scales.data(), beta.as<A>(), act);
  });
}

void CpuBackend::batch_norm_backward(ConstView x, ConstView y, ConstView dy, ConstView gamma, ConstView, ConstView mean,
                                     ConstView invstd, Activation act, bool batch_statistics, View dx, View dresidual,
                                     View dgamma, View dbeta, Stream) {
  assert(x.numel() == dy.numel() && x.dtype == dy.dtype);
  const RowTiles tiles(x.shape.rows(), x.shape.last());
  const auto channels = static_cast<std::size_t>(tiles.channels);
  dispatch_floating("batch_norm_backward", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const Partials partials(tiles);
    gradient_sums<T>(x, y, dy, dresidual, tiles, mean.as<A>(), act, partials);

    InputGradient<A> coefficients{std::vector<A>(channels), std::vector<A>(channels), std::vector<A>(channels)};
    for (std::size_t c = 0; c < channels; ++c) {
      double sum = 0, product = 0;
      for (std::int64_t t = 0; t < tiles.row_tiles; ++t) {
        sum += partials.first(t)[c];
        product += partials.second(t)[c];
      }
      const auto inverse = static_cast<double>(invstd.as<A>()[c]);
      const double scale = static_cast<double>(gamma.as<A>()[c]) * inverse;
      const double weight = batch_statistics ? scale / static_cast<double>(tiles.rows) : 0.0;
      dgamma.as<A>()[c] = static_cast<A>(product * inverse);
      dbeta.as<A>()[c] = static_cast<A>(sum);
      coefficients.a[c] = static_cast<A>(scale);
      coefficients.b[c] = static_cast<A>(-weight * product * inverse * inverse);
      coefficients.c[c] = static_cast<A>(-weight * sum);
    }
    if (!dx) return;
    // Where the gradient behind the activation was kept, reading it spares reading y.
    const ConstView upstream = dresidual ? ConstView(dresidual) : dy;
    dispatch_activation(dresidual ? Activation::identity : act, [&](auto kind) {
      parallel_for(tiles.count(), tiles.work(), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          tile_input_gradient<T, decltype(kind)::value>(x.as<T>(), y.as<T>(), upstream.as<T>(), dx.as<T>(), tiles[i],
                                                        mean.as<A>(), coefficients);
        }
      });
    });
  });
}

}  // namespace retort::kernels
