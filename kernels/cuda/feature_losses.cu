// Losses between feature maps: each reads its inputs once, in 16-byte packs, and writes its gradient in the same pass.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/common.h"
#include "kernels/cuda/partials.h"

namespace retort::kernels {
namespace {

// --- means over all elements ---------------------------------------------------------------------------------------

template <typename A>
struct ValueAndSlope {
  A value, slope;
};

// NaN passes through all of them.
template <typename A>
struct Squared {
  __device__ ValueAndSlope<A> operator()(A x, A t) const {
    const A d = x - t;
    return {d * d, d + d};
  }
};
template <typename A>
struct SmoothL1 {
  A beta, inverse;
  __device__ ValueAndSlope<A> operator()(A x, A t) const {
    const A d = x - t, size = std::abs(d);
    const A low = d < -beta ? -beta : d;
    const A steep = size > beta ? beta : size;
    return {steep * (size - A(0.5) * steep) * inverse, (low > beta ? beta : low) * inverse};
  }
};
template <typename A>
struct BinaryCrossEntropy {
  __device__ ValueAndSlope<A> operator()(A x, A t) const {
    const A e = std::exp(-std::abs(x));  // never above 1
    const A sigmoid = (x < A(0) ? e : A(1)) / (A(1) + e);
    return {(x < A(0) ? A(0) : x) - t * x + std::log1p(e), sigmoid - t};
  }
};

// gradient may be null.
template <typename T, typename F>
__global__ void __launch_bounds__(kBlockThreads)
    pointwise_loss_kernel(const T* x, const T* target, T* gradient, std::int64_t count, bool packed,
                          Accumulation<T> factor, F f, double* partial) {
  using A = Accumulation<T>;
  constexpr int kN = kPackOf<T>;
  double sum = 0;
  for_packs<kN>(
      count, packed,
      [&](std::int64_t i) {
        const Pack<T, kN> px = load_pack<kN>(x + i), pt = load_pack<kN>(target + i);
        Pack<T, kN> pg;
        A values = 0;
        for (int k = 0; k < kN; ++k) {
          const ValueAndSlope<A> both = f(static_cast<A>(px.v[k]), static_cast<A>(pt.v[k]));
          values += both.value;
          pg.v[k] = narrow<T>(factor * both.slope);
        }
        sum += static_cast<double>(values);
        if (gradient != nullptr) store_pack<kN>(gradient + i, pg);
      },
      [&](std::int64_t i) {
        const ValueAndSlope<A> both = f(static_cast<A>(x[i]), static_cast<A>(target[i]));
        sum += static_cast<double>(both.value);
        if (gradient != nullptr) gradient[i] = narrow<T>(factor * both.slope);
      });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <typename T, typename F>
void mean_of_losses(Backend& backend, ConstView x, ConstView target, View loss, View gradient, F f, Stream stream) {
  using A = Accumulation<T>;
  const double share = 1 / static_cast<double>(x.numel());
  const std::int64_t blocks = blocks_for_sum(x.numel(), std::int64_t{4} * kPackOf<T>);
  const Workspace<double> partial(backend, blocks, stream);
  const bool packed = aligned(x.as<T>(), target.as<T>(), gradient.as<T>());
  launch(pointwise_loss_kernel<T, F>, blocks, kBlockThreads, 0, stream, x.as<T>(), target.as<T>(), gradient.as<T>(),
         x.numel(), packed, static_cast<A>(share), f, partial.get());
  launch(finish_loss_kernel<A>, 1, kBlockThreads, 0, stream, partial.get(), blocks, share, loss.as<A>());
}

// --- channel energy ------------------------------------------------------------------------------------------------

// |x|^p and its derivative; p = 2 and p = 1 without a power.
template <typename A>
struct Power {
  A p;
  __device__ A operator()(A x) const {
    if (p == A(2)) return x * x;
    return p == A(1) ? std::abs(x) : std::pow(std::abs(x), p);
  }
  __device__ A derivative(A x) const {
    if (p == A(2)) return x + x;
    const A sign = static_cast<A>((x > A(0)) - (x < A(0)));
    if (p == A(1) || x == A(0)) return sign;  // no pole at 0 for p < 1
    return p * std::pow(std::abs(x), p - A(1)) * sign;
  }
};

// Rows of a matrix of packs, dealt to groups of neighbouring lanes: a power of two, as few as a row has packs.
struct RowGroups {
  int lanes;
  std::int64_t rows, columns;

  RowGroups(std::int64_t rows_in, std::int64_t columns_in, int width) : lanes(1), rows(rows_in), columns(columns_in) {
    while (lanes < 32 && lanes * width < columns) lanes *= 2;
  }
  std::int64_t grid() const { return grid_for(rows * lanes); }

  // each(row, lane in the group, whether there is such a row): the lanes of a warp stay together to the end.
  template <typename F>
  __device__ void operator()(const F& each) const {
    const int groups = kBlockThreads / lanes;
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * groups;
    for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * groups; base < rows; base += stride) {
      const std::int64_t row = base + static_cast<int>(threadIdx.x) / lanes;
      each(row, static_cast<int>(threadIdx.x) % lanes, row < rows);
    }
  }
};

template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    channel_energy_kernel(const T* x, RowGroups groups, Power<Accumulation<T>> power, Accumulation<T>* y) {
  using A = Accumulation<T>;
  groups([&](std::int64_t row, int lane, bool valid) {
    A sum = 0;
    for (std::int64_t c = lane * N; valid && c < groups.columns; c += groups.lanes * N) {
      const Pack<T, N> pack = load_pack<N>(x + row * groups.columns + c);
      for (int k = 0; k < N; ++k) sum += power(static_cast<A>(pack.v[k]));
    }
    for (int bit = groups.lanes / 2; bit > 0; bit /= 2) sum += __shfl_xor_sync(kFullWarp, sum, bit);
    if (valid && lane == 0) y[row] = sum / static_cast<A>(groups.columns);
  });
}

template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    channel_energy_backward_kernel(const T* x, const Accumulation<T>* dy, RowGroups groups,
                                   Power<Accumulation<T>> power, T* dx) {
  using A = Accumulation<T>;
  groups([&](std::int64_t row, int lane, bool valid) {
    if (!valid) return;
    const A factor = dy[row] / static_cast<A>(groups.columns);
    for (std::int64_t c = lane * N; c < groups.columns; c += groups.lanes * N) {
      const Pack<T, N> from = load_pack<N>(x + row * groups.columns + c);
      Pack<T, N> to;
      for (int k = 0; k < N; ++k) to.v[k] = narrow<T>(factor * power.derivative(static_cast<A>(from.v[k])));
      store_pack<N>(dx + row * groups.columns + c, to);
    }
  });
}

// --- transposition -------------------------------------------------------------------------------------------------

constexpr int kTile = 32, kTileStep = kBlockThreads / kTile;

// One tile of one sample a block: rows in, columns out, both in whole lines.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    transpose_kernel(const T* x, T* y, std::int64_t rows, std::int64_t columns, std::int64_t down,
                     std::int64_t across) {
  RETORT_SHARED(T, tile, kTile * (kTile + 1));
  const std::int64_t sample = blockIdx.x / (down * across), block = blockIdx.x % (down * across);
  const std::int64_t r = block / across * kTile, c = block % across * kTile;
  const int lane = static_cast<int>(threadIdx.x) % kTile, first = static_cast<int>(threadIdx.x) / kTile;
  x += sample * rows * columns;
  y += sample * rows * columns;
  for (int i = first; i < kTile; i += kTileStep) {
    if (r + i < rows && c + lane < columns) tile[i * (kTile + 1) + lane] = x[(r + i) * columns + c + lane];
  }
  __syncthreads();
  for (int i = first; i < kTile; i += kTileStep) {
    if (c + i < columns && r + lane < rows) y[(c + i) * rows + r + lane] = tile[lane * (kTile + 1) + i];
  }
}

// --- variational information ---------------------------------------------------------------------------------------

template <typename A>
__device__ inline double variance(A raw, double epsilon) {
  const double v = static_cast<double>(raw);
  return (v > 0 ? v : 0) + std::log1p(std::exp(-std::abs(v))) + epsilon;
}

// Per block and channel the sum of (mean - target)²; dmean, which may be null, is (mean - target) / v / numel.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    deviations_kernel(const T* mean, const T* target, const Accumulation<T>* raw, double epsilon, std::int64_t rows,
                      std::int64_t columns, std::int64_t rows_per_block, T* dmean, Accumulation<T>* partial) {
  using A = Accumulation<T>;
  RETORT_SHARED(A, shared, N * kBlockThreads);
  const ColumnShare share(rows, rows_per_block, N);
  A sum[N] = {}, factor[N] = {};
  if (share.column < columns) {
    const double numel = static_cast<double>(rows) * static_cast<double>(columns);
    for (int k = 0; k < N; ++k) {
      factor[k] = static_cast<A>(1 / (numel * variance(raw[share.column + k], epsilon)));
    }
    RETORT_UNROLL(4)
    for (std::int64_t row = share.first; row < share.last; row += blockDim.y) {
      const std::int64_t at = row * columns + share.column;
      const Pack<T, N> pm = load_pack<N>(mean + at), pt = load_pack<N>(target + at);
      Pack<T, N> out;
      for (int k = 0; k < N; ++k) {
        const A d = static_cast<A>(pm.v[k]) - static_cast<A>(pt.v[k]);
        sum[k] += d * d;
        out.v[k] = narrow<T>(factor[k] * d);
      }
      if (dmean != nullptr) store_pack<N>(dmean + at, out);
    }
  }
  sum_over_rows(sum, shared);
  if (threadIdx.y == 0 && share.column < columns) {
    for (int k = 0; k < N; ++k) partial[blockIdx.x * columns + share.column + k] = sum[k];
  }
}

// One block: the loss ½ sum_c (q_c / v_c + rows log v_c) / numel, and draw, which may be null.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    finish_information_kernel(const A* q, const A* raw, double epsilon, std::int64_t rows, std::int64_t columns,
                              A* loss, A* draw) {
  const double count = static_cast<double>(rows), share = 0.5 / (count * static_cast<double>(columns));
  double sum = 0;
  for (std::int64_t c = threadIdx.x; c < columns; c += kBlockThreads) {
    const double v = variance(raw[c], epsilon), deviation = static_cast<double>(q[c]) / v;
    sum += deviation + count * std::log(v);
    if (draw != nullptr) {
      draw[c] = static_cast<A>(share * (count - deviation) / v / (1 + std::exp(-static_cast<double>(raw[c]))));
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) loss[0] = static_cast<A>(share * sum);
}

}  // namespace

void CudaKernels::pointwise_loss(PointwiseLoss kind, double beta, ConstView x, ConstView target, View loss,
                                 View gradient, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    switch (kind) {
      case PointwiseLoss::squared:
        return mean_of_losses<T>(*this, x, target, loss, gradient, Squared<A>{}, stream);
      case PointwiseLoss::smooth_l1:
        return mean_of_losses<T>(*this, x, target, loss, gradient,
                                 SmoothL1<A>{static_cast<A>(beta), static_cast<A>(1 / beta)}, stream);
      case PointwiseLoss::binary_cross_entropy:
        return mean_of_losses<T>(*this, x, target, loss, gradient, BinaryCrossEntropy<A>{}, stream);
    }
  });
}

void CudaKernels::channel_energy(ConstView x, double p, View y, Stream stream) {
  const std::int64_t columns = x.shape.last();
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kPackOf<T>;
    const bool packed = columns % kN == 0 && aligned(x.as<T>());
    const RowGroups groups(y.numel(), columns, packed ? kN : 1);
    launch(packed ? channel_energy_kernel<T, kN> : channel_energy_kernel<T, 1>, groups.grid(), kBlockThreads, 0, stream,
           x.as<T>(), groups, Power<A>{static_cast<A>(p)}, y.as<A>());
  });
}

void CudaKernels::channel_energy_backward(ConstView x, double p, ConstView dy, View dx, Stream stream) {
  const std::int64_t columns = x.shape.last();
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kPackOf<T>;
    const bool packed = columns % kN == 0 && aligned(x.as<T>(), dx.as<T>());
    const RowGroups groups(dy.numel(), columns, packed ? kN : 1);
    launch(packed ? channel_energy_backward_kernel<T, kN> : channel_energy_backward_kernel<T, 1>, groups.grid(),
           kBlockThreads, 0, stream, x.as<T>(), dy.as<A>(), groups, Power<A>{static_cast<A>(p)}, dx.as<T>());
  });
}

void CudaKernels::transpose_inner(ConstView x, View y, Stream stream) {
  const std::int64_t samples = x.shape[0], rows = x.shape[1], columns = x.shape[2];
  const std::int64_t down = ceil_div(rows, kTile), across = ceil_div(columns, kTile);
  for_floating(x.dtype, [&]<typename T>() {
    launch(transpose_kernel<T>, samples * down * across, kBlockThreads, 0, stream, x.as<T>(), y.as<T>(), rows, columns,
           down, across);
  });
}

void CudaKernels::variational_information(ConstView mean, ConstView target, ConstView raw, double epsilon, View loss,
                                          View dmean, View draw, Stream stream) {
  const std::int64_t rows = mean.shape.rows(), columns = mean.shape.last();
  for_floating(mean.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kPackOf<T>;
    const bool packed = columns % kN == 0 && aligned(mean.as<T>(), target.as<T>(), dmean.as<T>());
    const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 4);
    const Workspace<A> partial(*this, plan.row_blocks() * columns, stream), sums(*this, columns, stream);
    launch(packed ? deviations_kernel<T, kN> : deviations_kernel<T, 1>, plan.grid, plan.block, 0, stream, mean.as<T>(),
           target.as<T>(), raw.as<A>(), epsilon, rows, columns, plan.rows_per_block, dmean.as<T>(), partial.get());
    launch(sum_partials_kernel<A>, ceil_div(columns, kMergeColumns), dim3(kMergeColumns, kMergeRows), 0, stream,
           partial.get(), plan.row_blocks(), columns, sums.get(), static_cast<A*>(nullptr));
    launch(finish_information_kernel<A>, 1, kBlockThreads, 0, stream, sums.get(), raw.as<A>(), epsilon, rows, columns,
           loss.as<A>(), draw.as<A>());
  });
}

}  // namespace retort::kernels
