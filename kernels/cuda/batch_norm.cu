// Batch normalisation with residual add and activation. Training goes over x twice: statistics, then y. Backward reads
// x and the masked dy twice: sums, then dx. Between the two a small kernel merges the blocks' results. All orders of
// addition are fixed.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

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
__global__ void __launch_bounds__(kBlockThreads)
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
  double momentum;
  A *mean, *var;
  std::int32_t* counter;
};

// Merges the blocks' statistics and updates the running ones.
template <typename A>
__global__ void __launch_bounds__(kMergeColumns* kMergeRows)
    merge_statistics_kernel(const A* means, const A* m2s, std::int64_t blocks, std::int64_t rows, std::int64_t columns,
                            std::int64_t rows_per_block, double epsilon, A* mean, A* invstd, Running<A> running) {
  RETORT_SHARED(Moments<double>, shared, kMergeColumns * kMergeRows);
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kMergeColumns + threadIdx.x;
  const unsigned thread = threadIdx.y * kMergeColumns + threadIdx.x;
  Moments<double> own{0, 0, 0};
  if (column < columns) {
    for (std::int64_t b = threadIdx.y; b < blocks; b += kMergeRows) {
      const std::int64_t left = rows - b * rows_per_block;
      own.merge({static_cast<double>(left < rows_per_block ? left : rows_per_block),
                 static_cast<double>(means[b * columns + column]), static_cast<double>(m2s[b * columns + column])});
    }
  }
  shared[thread] = own;
  for (unsigned half = kMergeRows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y >= half) continue;
    own.merge(shared[thread + half * kMergeColumns]);
    shared[thread] = own;
  }
  if (threadIdx.y == 0 && column < columns) {
    const double n = static_cast<double>(rows);
    mean[column] = static_cast<A>(own.mean);
    invstd[column] = static_cast<A>(1 / std::sqrt(own.m2 / n + epsilon));
    const double old_mean = static_cast<double>(running.mean[column]),
                 old_var = static_cast<double>(running.var[column]);
    const double unbiased = own.m2 / (rows > 1 ? n - 1 : 1);
    running.mean[column] = static_cast<A>(old_mean + running.momentum * (own.mean - old_mean));
    running.var[column] = static_cast<A>(old_var + running.momentum * (unbiased - old_var));
  }
  if (blockIdx.x == 0 && thread == 0) running.counter[0] += 1;
}

// y = act(gamma (x - mean) invstd + beta + residual). `spread` is invstd, or with `is_variance` the variance.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    normalize_kernel(const T* x, const T* residual, const Accumulation<T>* gamma, const Accumulation<T>* beta,
                     const Accumulation<T>* mean, const Accumulation<T>* spread, bool is_variance, double epsilon,
                     Activation act, T* y, std::int64_t rows, std::int64_t columns, std::int64_t rows_per_block) {
  using A = Accumulation<T>;
  const ColumnShare share(rows, rows_per_block, N);
  if (share.column >= columns) return;
  A center[N], factor[N], offset[N];
  for (int k = 0; k < N; ++k) {
    const std::int64_t c = share.column + k;
    const A invstd = is_variance ? A(1) / std::sqrt(spread[c] + static_cast<A>(epsilon)) : spread[c];
    center[k] = mean[c];
    factor[k] = gamma[c] * invstd;
    offset[k] = beta[c];
  }
  RETORT_UNROLL(4)
  for (std::int64_t row = share.first; row < share.last; row += blockDim.y) {
    const std::int64_t at = row * columns + share.column;
    const Pack<T, N> px = load_pack<N>(x + at);
    Pack<T, N> pr, py;
    if (residual != nullptr) pr = load_pack<N>(residual + at);
    for (int k = 0; k < N; ++k) {
      A value = (static_cast<A>(px.v[k]) - center[k]) * factor[k] + offset[k];
      if (residual != nullptr) value += static_cast<A>(pr.v[k]);
      py.v[k] = narrow<T>(activate(value, act));
    }
    store_pack<N>(y + at, py);
  }
}

// g = dy where the activation was open. Partial sums [row blocks, 2, columns] of g xhat and of g; g itself where
// wanted.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    gradient_sums_kernel(const T* x, const T* y, const T* dy, const Accumulation<T>* mean,
                         const Accumulation<T>* invstd, Activation act, T* masked, Accumulation<T>* partial,
                         std::int64_t rows, std::int64_t columns, std::int64_t rows_per_block) {
  using A = Accumulation<T>;
  RETORT_SHARED(A, shared, N * kBlockThreads);
  const ColumnShare share(rows, rows_per_block, N);
  const bool inside = share.column < columns;
  A sum_gx[N] = {}, sum_g[N] = {};
  if (inside) {
    A center[N], factor[N];
    for (int k = 0; k < N; ++k) {
      center[k] = mean[share.column + k];
      factor[k] = invstd[share.column + k];
    }
    RETORT_UNROLL(2)
    for (std::int64_t row = share.first; row < share.last; row += blockDim.y) {
      const std::int64_t at = row * columns + share.column;
      const Pack<T, N> px = load_pack<N>(x + at);
      Pack<T, N> pg = load_pack<N>(dy + at);
      if (act != Activation::identity) {
        const Pack<T, N> py = load_pack<N>(y + at);
        for (int k = 0; k < N; ++k) {
          if (!is_open(static_cast<A>(py.v[k]), act)) pg.v[k] = narrow<T>(A(0));
        }
      }
      if (masked != nullptr) store_pack<N>(masked + at, pg);
      for (int k = 0; k < N; ++k) {
        const A g = static_cast<A>(pg.v[k]);
        sum_g[k] += g;
        sum_gx[k] += g * ((static_cast<A>(px.v[k]) - center[k]) * factor[k]);
      }
    }
  }
  sum_over_rows(sum_gx, shared);
  sum_over_rows(sum_g, shared);
  if (threadIdx.y == 0 && inside) {
    A* const out = partial + blockIdx.x * 2 * columns + share.column;
    for (int k = 0; k < N; ++k) {
      out[k] = sum_gx[k];
      out[columns + k] = sum_g[k];
    }
  }
}

// dx = gamma invstd (g - (dbeta + xhat dgamma) / rows), the second part only with batch statistics.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    input_gradient_kernel(const T* x, const T* y, const T* dy, const Accumulation<T>* gamma,
                          const Accumulation<T>* mean, const Accumulation<T>* invstd, const Accumulation<T>* dgamma,
                          const Accumulation<T>* dbeta, Activation act, bool batch_statistics, T* dx, std::int64_t rows,
                          std::int64_t columns, std::int64_t rows_per_block) {
  using A = Accumulation<T>;
  const ColumnShare share(rows, rows_per_block, N);
  if (share.column >= columns) return;
  // dx = factor (g - offset - (x - center) slope)
  A center[N], factor[N], slope[N] = {}, offset[N] = {};
  for (int k = 0; k < N; ++k) {
    const std::int64_t c = share.column + k;
    center[k] = mean[c];
    factor[k] = gamma[c] * invstd[c];
    if (batch_statistics) {
      slope[k] = invstd[c] * (dgamma[c] / static_cast<A>(rows));
      offset[k] = dbeta[c] / static_cast<A>(rows);
    }
  }
  RETORT_UNROLL(2)
  for (std::int64_t row = share.first; row < share.last; row += blockDim.y) {
    const std::int64_t at = row * columns + share.column;
    const Pack<T, N> pg = load_pack<N>(dy + at), px = load_pack<N>(x + at);
    Pack<T, N> py, out;
    if (act != Activation::identity) py = load_pack<N>(y + at);
    for (int k = 0; k < N; ++k) {
      const bool open = act == Activation::identity || is_open(static_cast<A>(py.v[k]), act);
      const A g = open ? static_cast<A>(pg.v[k]) : A(0);
      out.v[k] = narrow<T>(factor[k] * (g - offset[k] - (static_cast<A>(px.v[k]) - center[k]) * slope[k]));
    }
    store_pack<N>(dx + at, out);
  }
}

template <typename T>
void normalize(ConstView x, ConstView residual, ConstView gamma, ConstView beta, ConstView mean, ConstView spread,
               bool is_variance, double epsilon, Activation act, View y, Stream stream) {
  using A = Accumulation<T>;
  constexpr int kN = kPackOf<T>;
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  const bool packed = columns % kN == 0 && aligned(x.as<T>(), residual.as<T>(), y.as<T>());
  const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 8);
  launch(packed ? normalize_kernel<T, kN> : normalize_kernel<T, 1>, plan.grid, plan.block, 0, stream, x.as<T>(),
         residual.as<T>(), gamma.as<A>(), beta.as<A>(), mean.as<A>(), spread.as<A>(), is_variance, epsilon, act,
         y.as<T>(), rows, columns, plan.rows_per_block);
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
    const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 4);
    {
      const Workspace<A> means(*this, plan.row_blocks() * columns, stream);
      const Workspace<A> m2s(*this, plan.row_blocks() * columns, stream);
      launch(packed ? statistics_kernel<T, kN> : statistics_kernel<T, 1>, plan.grid, plan.block, 0, stream, x.as<T>(),
             rows, columns, plan.rows_per_block, means.get(), m2s.get());
      const Running<A> running{momentum, running_mean.as<A>(), running_var.as<A>(), counter.as<std::int32_t>()};
      launch(merge_statistics_kernel<A>, ceil_div(columns, kMergeColumns), dim3(kMergeColumns, kMergeRows), 0, stream,
             means.get(), m2s.get(), plan.row_blocks(), rows, columns, plan.rows_per_block, epsilon, mean.as<A>(),
             invstd.as<A>(), running);
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

void CudaKernels::batch_norm_backward(ConstView x, ConstView y, ConstView dy, ConstView gamma, ConstView mean,
                                      ConstView invstd, Activation act, bool batch_statistics, View dx, View dresidual,
                                      View dgamma, View dbeta, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kPackOf<T>;
    const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
    const bool packed = columns % kN == 0 && aligned(x.as<T>(), y.as<T>(), dy.as<T>(), dx.as<T>(), dresidual.as<T>());
    {
      const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 4);
      const Workspace<A> partial(*this, plan.row_blocks() * 2 * columns, stream);
      const bool write_masked = dresidual && (act != Activation::identity || dresidual.data != dy.data);
      launch(packed ? gradient_sums_kernel<T, kN> : gradient_sums_kernel<T, 1>, plan.grid, plan.block, 0, stream,
             x.as<T>(), y.as<T>(), dy.as<T>(), mean.as<A>(), invstd.as<A>(), act,
             write_masked ? dresidual.as<T>() : static_cast<T*>(nullptr), partial.get(), rows, columns,
             plan.rows_per_block);
      launch(sum_partials_kernel<A>, ceil_div(2 * columns, kMergeColumns), dim3(kMergeColumns, kMergeRows), 0, stream,
             partial.get(), plan.row_blocks(), columns, dgamma.as<A>(), dbeta.as<A>());
    }
    if (!dx) return;
    // Where the masked gradient was written anyway, it serves instead of dy and y: a third less to read.
    const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 8);
    const T* const gradient = dresidual ? dresidual.as<T>() : dy.as<T>();
    launch(packed ? input_gradient_kernel<T, kN> : input_gradient_kernel<T, 1>, plan.grid, plan.block, 0, stream,
           x.as<T>(), y.as<T>(), gradient, gamma.as<A>(), mean.as<A>(), invstd.as<A>(), dgamma.as<A>(), dbeta.as<A>(),
           dresidual ? Activation::identity : act, batch_statistics, dx.as<T>(), rows, columns, plan.rows_per_block);
  });
}

}  // namespace retort::kernels
