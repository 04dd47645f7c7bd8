// Losses between feature maps. They wait for memory: each reads its inputs once and writes its gradient in the same
// pass.
#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_tiles.h"
#include "kernels/cpu/transpose.h"

namespace retort::kernels {
namespace cpu {
namespace {

// --- means over all elements -------------------------------------------------------------------------------------

template <typename A>
struct ValueAndSlope {
  A value, slope;
};

// NaN passes through all of them: a tensor that went bad must stay visible.
template <typename A>
struct Squared {
  ValueAndSlope<A> operator()(A x, A t) const {
    const A d = x - t;
    return {d * d, d + d};
  }
};
template <typename A>
struct SmoothL1 {
  A beta, inverse;
  ValueAndSlope<A> operator()(A x, A t) const {
    const A d = x - t, size = std::abs(d);
    const A low = d < -beta ? -beta : d;
    const A clamped = low > beta ? beta : low;
    const A steep = size > beta ? beta : size;
    return {steep * (size - A(0.5) * steep) * inverse, clamped * inverse};
  }
};
template <typename A>
struct BinaryCrossEntropy {
  ValueAndSlope<A> operator()(A x, A t) const {
    const A e = std::exp(-std::abs(x));  // never above 1
    const A sigmoid = (x < A(0) ? e : A(1)) / (A(1) + e);
    return {(x < A(0) ? A(0) : x) - t * x + std::log1p(e), sigmoid - t};
  }
};

// Sums of values of up to kShort elements are taken in A, those of more in f64: few enough for f32 even where no vector
// lanes share them, as with sanitizers.
constexpr std::int64_t kShort = 256;

template <typename T, typename F>
double sum_of_losses(const T* x, const T* t, T* gradient, Accumulator<T> factor, std::int64_t begin, std::int64_t end,
                     F f) {
  using A = Accumulator<T>;
  double total = 0;
  for (std::int64_t first = begin; first < end; first += kShort) {
    const std::int64_t last = std::min(end, first + kShort);
    A sum = 0, slopes[kShort];  // rounding to T has its own loop: GCC vectorises it only apart from the sum
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = first; i < last; ++i) {
      const ValueAndSlope<A> both = f(load(x[i]), load(t[i]));
      slopes[i - first] = both.slope;
      sum += both.value;
    }
    if (gradient != nullptr) {
#pragma omp simd
      for (std::int64_t i = first; i < last; ++i) gradient[i] = static_cast<T>(factor * slopes[i - first]);
    }
    total += static_cast<double>(sum);
  }
  return total;
}

template <typename T, typename F>
void mean_of_losses(ConstView x, ConstView target, View loss, View gradient, F f) {
  using A = Accumulator<T>;
  const double share = 1 / static_cast<double>(x.numel());
  const double total = ordered_sum(x.numel(), [&](std::int64_t begin, std::int64_t end) {
    return sum_of_losses(x.as<T>(), target.as<T>(), gradient.as<T>(), static_cast<A>(share), begin, end, f);
  });
  loss.as<A>()[0] = static_cast<A>(share * total);
}

// --- channel energy ----------------------------------------------------------------------------------------------

// f(power, derivative) with the functions |x|^p and p |x|^(p - 1) sign(x).
template <typename A, typename F>
void dispatch_power(double p, const F& f) {
  if (p == 2) return f([](A x) { return x * x; }, [](A x) { return x + x; });
  const auto sign = [](A x) { return static_cast<A>((x > A(0)) - (x < A(0))); };
  if (p == 1) return f([](A x) { return std::abs(x); }, sign);
  f([p = static_cast<A>(p)](A x) { return std::pow(std::abs(x), p); },
    [p = static_cast<A>(p), sign](A x) {
      return x == A(0) ? A(0) : p * std::pow(std::abs(x), p - A(1)) * sign(x);  // no pole at 0 for p < 1
    });
}

// --- variational information -------------------------------------------------------------------------------------

template <typename A>
A variance(A raw, double epsilon) {
  const auto v = static_cast<double>(raw);
  return static_cast<A>(std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v))) + epsilon);
}

// Per channel of a tile the sum of (mean - target)², to `sums`; dmean where there is one.
template <typename T>
void deviations(const Tile& tile, const T* mean, const T* target, const Accumulator<T>* factors, T* dmean,
                double* sums) {
  using A = Accumulator<T>;
  A squares[kMaxLanes] = {}, scales[kMaxLanes] = {};
  if (dmean != nullptr) spread_lanes(tile, factors, scales);
  const auto row = [&](std::int64_t offset, std::int64_t lanes) {
    const T *const m = mean + offset, *const t = target + offset;
    if (dmean == nullptr) {
#pragma omp simd
      for (std::int64_t j = 0; j < lanes; ++j) {
        const A d = load(m[j]) - load(t[j]);
        squares[j] += d * d;
      }
      return;
    }
    T* const dm = dmean + offset;
#pragma omp simd
    for (std::int64_t j = 0; j < lanes; ++j) {
      const A d = load(m[j]) - load(t[j]);
      squares[j] += d * d;
      dm[j] = static_cast<T>(scales[j] * d);
    }
  };
  for_wide_rows(
      tile,
      [&](std::int64_t offset) {
        for (int i = 0; i < 4; ++i) row(offset + i * tile.stride, tile.lanes);
      },
      row);
  for (std::int64_t c = 0; c < tile.width; ++c) sums[tile.channel + c] = fold_lanes(tile, squares, c);
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::pointwise_loss(PointwiseLoss kind, double beta, ConstView x, ConstView target, View loss,
                                View gradient, Stream) {
  assert(x.dtype == target.dtype && x.numel() == target.numel());
  dispatch_floating("pointwise_loss", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    switch (kind) {
      case PointwiseLoss::squared:
        return mean_of_losses<T>(x, target, loss, gradient, Squared<A>{});
      case PointwiseLoss::smooth_l1:
        return mean_of_losses<T>(x, target, loss, gradient,
                                 SmoothL1<A>{static_cast<A>(beta), static_cast<A>(1 / beta)});
      case PointwiseLoss::binary_cross_entropy:
        return mean_of_losses<T>(x, target, loss, gradient, BinaryCrossEntropy<A>{});
    }
  });
}

void CpuBackend::channel_energy(ConstView x, double p, View y, Stream) {
  const std::int64_t channels = x.shape.last();
  assert(y.numel() == x.shape.rows());
  dispatch_floating("channel_energy", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const A share = static_cast<A>(1 / static_cast<double>(channels));
    dispatch_power<A>(p, [&](auto power, auto) {
      parallel_for(y.numel(), channels, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const T* const row = x.as<T>() + r * channels;
          A sum = 0;
#pragma omp simd reduction(+ : sum)
          for (std::int64_t c = 0; c < channels; ++c) sum += power(load(row[c]));
          y.as<A>()[r] = share * sum;
        }
      });
    });
  });
}

void CpuBackend::channel_energy_backward(ConstView x, double p, ConstView dy, View dx, Stream) {
  const std::int64_t channels = x.shape.last();
  assert(dy.numel() == x.shape.rows() && dx.numel() == x.numel());
  dispatch_floating("channel_energy_backward", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const A share = static_cast<A>(1 / static_cast<double>(channels));
    dispatch_power<A>(p, [&](auto, auto derivative) {
      parallel_for(dy.numel(), channels, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const T* const row = x.as<T>() + r * channels;
          T* const out = dx.as<T>() + r * channels;
          const A factor = share * dy.as<A>()[r];
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) out[c] = static_cast<T>(factor * derivative(load(row[c])));
        }
      });
    });
  });
}

void CpuBackend::transpose_inner(ConstView x, View y, Stream) {
  assert(x.shape.rank() == 3 && x.dtype == y.dtype && x.numel() == y.numel());
  const std::int64_t samples = x.shape[0], rows = x.shape[1], columns = x.shape[2];
  constexpr std::int64_t kBlock = kTransposeBlock;
  const std::int64_t down = (rows + kBlock - 1) / kBlock, across = (columns + kBlock - 1) / kBlock;
  dispatch_floating("transpose_inner", x.dtype, [&]<typename T>(std::type_identity<T>) {
    parallel_for(samples * down * across, kBlock * kBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t sample = i / (down * across), block = i % (down * across), first = sample * rows * columns;
        // Down the rows first: y is written in long runs.
        const std::int64_t r = block % down * kBlock, c = block / down * kBlock;
        transpose_block(x.as<T>() + first + r * columns + c, columns, y.as<T>() + first + c * rows + r, rows,
                        std::min(kBlock, rows - r), std::min(kBlock, columns - c));
      }
    });
  });
}

// Per channel only the sum q of (mean - target)² matters: the loss is ½ sum_c (q_c / v_c + rows log v_c) / numel.
void CpuBackend::variational_information(ConstView mean, ConstView target, ConstView raw, double epsilon, View loss,
                                         View dmean, View draw, Stream) {
  assert(mean.dtype == target.dtype && mean.shape == target.shape && raw.numel() == mean.shape.last());
  const RowTiles tiles(mean.shape.rows(), mean.shape.last());
  const std::int64_t channels = tiles.channels;
  const auto rows = static_cast<double>(tiles.rows), share = 1 / static_cast<double>(mean.numel());
  dispatch_floating("variational_information", mean.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    std::vector<A> factors(static_cast<std::size_t>(channels));
    std::vector<double> partial(static_cast<std::size_t>(tiles.row_tiles * channels));
    for (std::int64_t c = 0; c < channels; ++c) {
      factors[static_cast<std::size_t>(c)] =
          static_cast<A>(share / static_cast<double>(variance(raw.as<A>()[c], epsilon)));
    }
    parallel_for(tiles.count(), tiles.work(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Tile tile = tiles[i];
        deviations(tile, mean.as<T>(), target.as<T>(), factors.data(), dmean.as<T>(),
                   partial.data() + tile.index * channels);
      }
    });
    double total = 0;
    for (std::int64_t c = 0; c < channels; ++c) {
      double q = 0;
      for (std::int64_t t = 0; t < tiles.row_tiles; ++t) q += partial[static_cast<std::size_t>(t * channels + c)];
      const auto r = static_cast<double>(raw.as<A>()[c]);
      const auto v = static_cast<double>(variance(raw.as<A>()[c], epsilon));
      total += q / v + rows * std::log(v);
      if (draw) draw.as<A>()[c] = static_cast<A>(0.5 * share * (rows - q / v) / v / (1 + std::exp(-r)));
    }
    loss.as<A>()[0] = static_cast<A>(0.5 * share * total);
  });
}

}  // namespace retort::kernels
