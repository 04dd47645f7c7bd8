// Batch normalisation with residual add and activation. Training goes over x twice: statistics, then y. Backward reads
// x and the masked dy twice: sums, then dx. Between the two a small kernel merges the blocks' results. All orders of
// addition are fixed.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

// Blocks a multiprocessor. The registers that a pack of eight bf16 columns and four loads in flight take leave room for
// three.
constexpr int kStatisticsBlocks = 3;
// The backward pass keeps up to five values a column in registers. Packs of four columns, in groups of rows that make 48
// or 64 bytes of loads, leave room for four blocks a multiprocessor.
constexpr int kBackwardBlocks = 4;
template <typename T>
constexpr int kBackwardPack = std::min(kPackOf<T>, 4);
template <typename T>
constexpr int kBackwardRows = sizeof(T) == sizeof(bf16) ? 3 : 2;

// Count, mean and sum of squared deviations of a set of values; merged after Chan, Golub & LeVeque (1979), so that no
// large sums of squares are subtracted from each other.
template <typename A>
struct Moments {
  A count, mean, m2;
  __device__ void merge(const Moments& other) {
    if (other.count == A(0)) return;
    const A total = count + other.count, delta = other.mean - mean;
    mean += delta * (other.count / total);
    m2 += other.m2 + delta * delta * (count * other.count / total);
    count = total;
  }
};

// Means and m2s [row blocks, columns] of x, each block's of its range of rows. Within a thread the values are shifted
// by the first one it sees.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads, kStatisticsBlocks)
    statistics_kernel(const T* x, std::int64_t rows, std::int64_t columns, std::int64_t rows_per_block,
                      Accumulation<T>* means, Accumulation<T>* m2s) {
  using A = Accumulation<T>;
  RETORT_SHARED(A, shared_count, kBlockThreads);
  RETORT_SHARED(A, shared_mean, N * kBlockThreads);
  RETORT_SHARED(A, shared_m2, N * kBlockThreads);
  const ColumnShare share(rows, rows_per_block, N);
  const bool inside = share.column < columns && share.first < share.last;
  A shift[N] = {}, sum[N] = {}, squares[N] = {};
  std::int64_t seen = 0;
  if (inside) {
    const Pack<T, N> head = load_pack<N>(x + share.first * columns + share.column);
    for (int k = 0; k < N; ++k) shift[k] = static_cast<A>(head.v[k]);
    seen = (share.last - share.first + blockDim.y - 1) / blockDim.y;
    RETORT_UNROLL(4)
    for (std::int64_t row = share.first + blockDim.y; row < share.last; row += blockDim.y) {
      const Pack<T, N> pack = load_pack<N>(x + row * columns + share.column);
      for (int k = 0; k < N; ++k) {
        const A d = static_cast<A>(pack.v[k]) - shift[k];
        sum[k] += d;
        squares[k] += d * d;
      }
    }
  }

  Moments<A> own[N];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  const A count = static_cast<A>(seen), inverse = seen > 0 ? A(1) / count : A(0);
  for (int k = 0; k < N; ++k) {
    const A m2 = squares[k] - sum[k] * sum[k] * inverse;
    own[k] = {count, shift[k] + sum[k] * inverse, m2 > A(0) || m2 != m2 ? m2 : A(0)};
    shared_mean[k * kBlockThreads + thread] = own[k].mean;
    shared_m2[k * kBlockThreads + thread] = own[k].m2;
  }
  shared_count[thread] = count;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y >= half) continue;
    const unsigned other = thread + half * blockDim.x;
    for (int k = 0; k < N; ++k) {
      own[k].merge({shared_count[other], shared_mean[k * kBlockThreads + other], shared_m2[k * kBlockThreads + other]});
      shared_mean[k * kBlockThreads + thread] = own[k].mean;
      shared_m2[k * kBlockThreads + thread] = own[k].m2;
    }
    shared_count[thread] = own[0].count;
  }
  if (threadIdx.y == 0 && share.column < columns) {
    for (int k = 0; k < N; ++k) {
      means[blockIdx.x * columns + share.column + k] = own[k].mean;
      m2s[blockIdx.x * columns + share.column + k] = own[k].m2;
    }
  }
}

template <typename A>
struct Running {
  double momentum, inverse_rows;  // 1 / (rows - 1), for the unbiased variance
  A *mean, *var;
  std::int32_t* counter;
};

// Merges the blocks' statistics and updates the running ones. How many rows a block had is known, so two sums do it, of
// the means and then of what lies around the whole mean, without a division that waits for another.
template <typename A>
__global__ void __launch_bounds__(kMergeColumns* kMergeRows)
    merge_statistics_kernel(const A* means, const A* m2s, std::int64_t blocks, std::int64_t rows, std::int64_t columns,
                            std::int64_t rows_per_block, double inverse_rows, double epsilon, A* mean, A* invstd,
                            Running<A> running) {
  RETORT_SHARED(double, shared, kMergeColumns* kMergeRows);
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kMergeColumns + threadIdx.x;
  const double whole = static_cast<double>(rows_per_block),
               last = static_cast<double>(rows - (blocks - 1) * rows_per_block);
  const std::int64_t end = column < columns ? blocks : 0;
  double sum = 0, m2 = 0;
  RETORT_UNROLL(4)
  for (std::int64_t b = threadIdx.y; b < end; b += kMergeRows) {
    sum += (b + 1 < blocks ? whole : last) * static_cast<double>(means[b * columns + column]);
  }
  const double merged_mean = sum_over_merge_rows(sum, shared) * inverse_rows;
  RETORT_UNROLL(4)
  for (std::int64_t b = threadIdx.y; b < end; b += kMergeRows) {
    const double d = static_cast<double>(means[b * columns + column]) - merged_mean;
    m2 += static_cast<double>(m2s[b * columns + column]) + (b + 1 < blocks ? whole : last) * d * d;
  }
  m2 = sum_over_merge_rows(m2, shared);
  if (threadIdx.y == 0 && column < columns) {
    mean[column] = static_cast<A>(merged_mean);
    invstd[column] = static_cast<A>(1 / std::sqrt(m2 * inverse_rows + epsilon));
    const double old_mean = static_cast<double>(running.mean[column]),
                 old_var = static_cast<double>(running.var[column]);
    const double unbiased = m2 * running.inverse_rows;
    running.mean[column] = static_cast<A>(old_mean + running.momentum * (merged_mean - old_mean));
    running.var[column] = static_cast<A>(old_var + running.momentum * (unbiased - old_var));
  }
  if (blockIdx.x == 0 && threadIdx.y == 0 && threadIdx.x == 0) running.counter[0] += 1;
}

// gamma (x - mean) invstd + beta. Forward and backward must get the same bits, so how it is rounded is left to nobody.
template <typename A>
__device__ inline A affine(A x, A center, A factor, A offset) {
  return std::fma(x - center, factor, offset);
}

// y = act(gamma (x - mean) invstd + beta + residual). `spread` is invstd, or with `is_variance` the variance.
template <typename T, int N, bool kResidual>
__global__ void __launch_bounds__(kBlockThreads)
    normalize_kernel(const T* x, const T* residual, const Accumulation<T>* gamma, const Accumulation<T>* beta,
                     const Accumulation<T>* mean, const Accumulation<T>* spread, bool is_variance,
                     Accumulation<T> epsilon, Activation act, T* y, std::int64_t rows, std::int64_t columns,
                     std::int64_t rows_per_block) {
  using A = Accumulation<T>;
  const ColumnShare share(rows, rows_per_block, N);
  if (share.column >= columns) return;
  A center[N], factor[N], offset[N], invstd[N];
  load_columns(mean + share.column, center);
  load_columns(gamma + share.column, factor);
  load_columns(beta + share.column, offset);
  load_columns(spread + share.column, invstd);
  for (int k = 0; k < N; ++k) factor[k] *= is_variance ? A(1) / std::sqrt(invstd[k] + epsilon) : invstd[k];
  const std::int64_t pitch = columns * blockDim.y;
  for_row_groups<kResidual ? 2 : 4>(share, [&]<int R>(std::integral_constant<int, R>, std::int64_t row) {
    const std::int64_t at = row * columns + share.column;
    Pack<T, N> px[R];
    [[maybe_unused]] Pack<T, N> pr[kResidual ? R : 1];
    load_packs(x + at, pitch, px);
    if constexpr (kResidual) load_packs(residual + at, pitch, pr);
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < N; ++k) {
        A value = affine(static_cast<A>(px[r].v[k]), center[k], factor[k], offset[k]);
        if constexpr (kResidual) value += static_cast<A>(pr[r].v[k]);
        px[r].v[k] = narrow<T>(activate(value, act));
      }
      store_pack<N>(y + at + r * pitch, px[r]);
    }
  });
}

// Where the backward pass learns whether the activation was open.
enum class Mask { none, from_y, from_x };

// The packs of g, that is dy where the activation was open, of R rows from element `at` on; `px` are those rows of x.
template <Mask kMask, typename T, int N, int R, typename A>
__device__ inline void load_masked(const T* y, const T* dy, std::int64_t at, std::int64_t pitch, Activation act,
                                   const Pack<T, N> (&px)[R], const A (&center)[N], const A (&factor)[N],
                                   const A (&offset)[N], Pack<T, N> (&pg)[R]) {
  load_packs(dy + at, pitch, pg);
  if constexpr (kMask == Mask::from_y) {
    Pack<T, N> py[R];
    load_packs(y + at, pitch, py);
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < N; ++k) {
        if (!is_open(static_cast<A>(py[r].v[k]), act)) pg[r].v[k] = narrow<T>(A(0));
      }
    }
  } else if constexpr (kMask == Mask::from_x) {
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < N; ++k) {
        const A value = affine(static_cast<A>(px[r].v[k]), center[k], factor[k], offset[k]);
        if (!is_open(static_cast<A>(narrow<T>(activate(value, act))), act)) pg[r].v[k] = narrow<T>(A(0));
      }
    }
  }
}

// Partial sums [row blocks, 2, columns] of g xhat and of g; g itself where wanted.
template <typename T, int N, Mask kMask>
__global__ void __launch_bounds__(kBlockThreads, kBackwardBlocks)
    gradient_sums_kernel(const T* x, const T* y, const T* dy, const Accumulation<T>* gamma, const Accumulation<T>* beta,
                         const Accumulation<T>* mean, const Accumulation<T>* invstd, Activation act, T* masked,
                         Accumulation<T>* partial, std::int64_t rows, std::int64_t columns,
                         std::int64_t rows_per_block) {
  using A = Accumulation<T>;
  RETORT_SHARED(A, shared, N * kBlockThreads);
  const ColumnShare share(rows, rows_per_block, N);
  const bool inside = share.column < columns;
  A sum_gx[N] = {}, sum_g[N] = {};
  if (inside) {
    A center[N], factor[N] = {}, offset[N] = {};
    load_columns(mean + share.column, center);
    if constexpr (kMask == Mask::from_x) {
      A spread[N];
      load_columns(invstd + share.column, spread);
      load_columns(gamma + share.column, factor);
      load_columns(beta + share.column, offset);
      for (int k = 0; k < N; ++k) factor[k] *= spread[k];
    }
    const std::int64_t pitch = columns * blockDim.y;
    for_row_groups<kBackwardRows<T>>(share, [&]<int R>(std::integral_constant<int, R>, std::int64_t row) {
      const std::int64_t at = row * columns + share.column;
      Pack<T, N> px[R], pg[R];
      load_packs(x + at, pitch, px);
      load_masked<kMask>(y, dy, at, pitch, act, px, center, factor, offset, pg);
      for (int r = 0; r < R; ++r) {
        if (masked != nullptr) store_pack<N>(masked + at + r * pitch, pg[r]);
        for (int k = 0; k < N; ++k) {
          const A g = static_cast<A>(pg[r].v[k]);
          sum_g[k] += g;
          sum_gx[k] = std::fma(g, static_cast<A>(px[r].v[k]) - center[k], sum_gx[k]);
        }
      }
    });
  }
  sum_over_rows(sum_gx, shared);
  sum_over_rows(sum_g, shared);
  if (threadIdx.y == 0 && inside) {
    A* const out = partial + blockIdx.x * 2 * columns + share.column;
    for (int k = 0; k < N; ++k) {
      out[k] = sum_gx[k] * invstd[share.column + k];
      out[columns + k] = sum_g[k];
    }
  }
}

// dx = gamma invstd (g - (dbeta + xhat dgamma) / rows), the second part only with batch statistics: then
// `inverse_rows` is 1 / rows, else 0.
template <typename T, int N, Mask kMask>
__global__ void __launch_bounds__(kBlockThreads, kBackwardBlocks)
    input_gradient_kernel(const T* x, const T* y, const T* dy, const Accumulation<T>* gamma,
                          const Accumulation<T>* beta, const Accumulation<T>* mean, const Accumulation<T>* invstd,
                          const Accumulation<T>* dgamma, const Accumulation<T>* dbeta, Activation act,
                          Accumulation<T> inverse_rows, T* dx, std::int64_t rows, std::int64_t columns,
                          std::int64_t rows_per_block) {
  using A = Accumulation<T>;
  const ColumnShare share(rows, rows_per_block, N);
  if (share.column >= columns) return;
  // dx = factor g + slope (x - center) + constant
  A center[N], factor[N], slope[N] = {}, constant[N] = {}, offset[N] = {};
  load_columns(mean + share.column, center);
  load_columns(gamma + share.column, factor);
  {
    A spread[N];
    load_columns(invstd + share.column, spread);
    for (int k = 0; k < N; ++k) factor[k] *= spread[k];
    if (inverse_rows != A(0)) {
      load_columns(dgamma + share.column, slope);
      load_columns(dbeta + share.column, constant);
      for (int k = 0; k < N; ++k) {
        const A weight = -factor[k] * inverse_rows;
        slope[k] *= weight * spread[k];
        constant[k] *= weight;
      }
    }
  }
  if constexpr (kMask == Mask::from_x) load_columns(beta + share.column, offset);
  const std::int64_t pitch = columns * blockDim.y;
  for_row_groups<kBackwardRows<T>>(share, [&]<int R>(std::integral_constant<int, R>, std::int64_t row) {
    const std::int64_t at = row * columns + share.column;
    Pack<T, N> px[R], pg[R];
    load_packs(x + at, pitch, px);
    load_masked<kMask>(y, dy, at, pitch, act, px, center, factor, offset, pg);
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < N; ++k) {
        const A g = static_cast<A>(pg[r].v[k]), d = static_cast<A>(px[r].v[k]) - center[k];
        pg[r].v[k] = narrow<T>(std::fma(factor[k], g, std::fma(slope[k], d, constant[k])));
      }
      store_pack<N>(dx + at + r * pitch, pg[r]);
    }
  });
}

template <typename T>
void normalize(ConstView x, ConstView residual, ConstView gamma, ConstView beta, ConstView mean, ConstView spread,
               bool is_variance, double epsilon, Activation act, View y, Stream stream) {
  using A = Accumulation<T>;
  constexpr int kN = kPackOf<T>;
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  const bool packed = columns % kN == 0 && aligned(x.as<T>(), residual.as<T>(), y.as<T>(), gamma.as<A>(), beta.as<A>(),
                                                   mean.as<A>(), spread.as<A>());
  const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 8);
  const auto kernel = packed ? (residual ? normalize_kernel<T, kN, true> : normalize_kernel<T, kN, false>)
                             : (residual ? normalize_kernel<T, 1, true> : normalize_kernel<T, 1, false>);
  launch(kernel, plan.grid, plan.block, 0, stream, x.as<T>(), residual.as<T>(), gamma.as<A>(), beta.as<A>(),
         mean.as<A>(), spread.as<A>(), is_variance, static_cast<A>(epsilon), act, y.as<T>(), rows, columns,
         plan.rows_per_block);
}

// f(std::integral_constant<Mask, ...>)
template <typename F>
auto for_mask(Mask mask, const F& f) {
  if (mask == Mask::none) return f(std::integral_constant<Mask, Mask::none>{});
  if (mask == Mask::from_y) return f(std::integral_constant<Mask, Mask::from_y>{});
  return f(std::integral_constant<Mask, Mask::from_x>{});
}

}  // namespace

void CudaKernels::batch_norm_training(ConstView x, ConstView residual, ConstView gamma, ConstView beta, double momentum,
                                      double epsilon, Activation act, View y, View mean, View invstd, View running_mean,
                                      View running_var, View counter, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kPackOf<T>;
    const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
    const bool packed = columns % kN == 0 && aligned(x.as<T>());
    const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, kStatisticsBlocks);
    {
      const Workspace<A> means(*this, plan.row_blocks() * columns, stream);
      const Workspace<A> m2s(*this, plan.row_blocks() * columns, stream);
      launch(packed ? statistics_kernel<T, kN> : statistics_kernel<T, 1>, plan.grid, plan.block, 0, stream, x.as<T>(),
             rows, columns, plan.rows_per_block, means.get(), m2s.get());
      const Running<A> running{momentum, 1.0 / static_cast<double>(std::max<std::int64_t>(rows - 1, 1)),
                               running_mean.as<A>(), running_var.as<A>(), counter.as<std::int32_t>()};
      launch(merge_statistics_kernel<A>, ceil_div(columns, kMergeColumns), dim3(kMergeColumns, kMergeRows), 0, stream,
             means.get(), m2s.get(), plan.row_blocks(), rows, columns, plan.rows_per_block,
             1.0 / static_cast<double>(rows), epsilon, mean.as<A>(), invstd.as<A>(), running);
    }
    normalize<T>(x, residual, gamma, beta, mean, invstd, false, epsilon, act, y, stream);
  });
}

void CudaKernels::batch_norm_inference(ConstView x, ConstView residual, ConstView gamma, ConstView beta,
                                       ConstView running_mean, ConstView running_var, double epsilon, Activation act,
                                       View y, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    normalize<T>(x, residual, gamma, beta, running_mean, running_var, true, epsilon, act, y, stream);
  });
}

void CudaKernels::batch_norm_backward(ConstView x, ConstView y, ConstView dy, ConstView gamma, ConstView beta,
                                      ConstView mean, ConstView invstd, Activation act, bool batch_statistics, View dx,
                                      View dresidual, View dgamma, View dbeta, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kBackwardPack<T>;
    const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
    const bool packed =
        columns % kN == 0 && aligned(x.as<T>(), y.as<T>(), dy.as<T>(), dx.as<T>(), dresidual.as<T>(), gamma.as<A>(),
                                     beta.as<A>(), mean.as<A>(), invstd.as<A>(), dgamma.as<A>(), dbeta.as<A>());
    const Mask mask = act == Activation::identity ? Mask::none : beta ? Mask::from_x : Mask::from_y;
    const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, kBackwardBlocks);
    {
      const Workspace<A> partial(*this, plan.row_blocks() * 2 * columns, stream);
      const bool write_masked = dresidual && (act != Activation::identity || dresidual.data != dy.data);
      const auto kernel = for_mask(mask, [&]<Mask kMask>(std::integral_constant<Mask, kMask>) {
        return packed ? gradient_sums_kernel<T, kN, kMask> : gradient_sums_kernel<T, 1, kMask>;
      });
      launch(kernel, plan.grid, plan.block, 0, stream, x.as<T>(), y.as<T>(), dy.as<T>(), gamma.as<A>(), beta.as<A>(),
             mean.as<A>(), invstd.as<A>(), act, write_masked ? dresidual.as<T>() : static_cast<T*>(nullptr),
             partial.get(), rows, columns, plan.rows_per_block);
      launch(sum_partials_kernel<A>, ceil_div(2 * columns, kMergeColumns), dim3(kMergeColumns, kMergeRows), 0, stream,
             partial.get(), plan.row_blocks(), columns, dgamma.as<A>(), dbeta.as<A>());
    }
    if (!dx) return;
    // Where the masked gradient was written anyway, it serves instead of dy and y: a third less to read.
    const T* const gradient = dresidual ? dresidual.as<T>() : dy.as<T>();
    const auto kernel = for_mask(dresidual ? Mask::none : mask, [&]<Mask kMask>(std::integral_constant<Mask, kMask>) {
      return packed ? input_gradient_kernel<T, kN, kMask> : input_gradient_kernel<T, 1, kMask>;
    });
    launch(kernel, plan.grid, plan.block, 0, stream, x.as<T>(), y.as<T>(), gradient, gamma.as<A>(), beta.as<A>(),
           mean.as<A>(), invstd.as<A>(), dgamma.as<A>(), dbeta.as<A>(), act,
           batch_statistics ? A(1) / static_cast<A>(rows) : A(0), dx.as<T>(), rows, columns, plan.rows_per_block);
  });
}

}  // namespace retort::kernels
