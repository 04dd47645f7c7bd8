// Sums, in two stages and a fixed order, accumulated in f64: a reduction waits for memory, not for arithmetic.
#include "kernels/cuda/columns.h"
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

constexpr int kMaxPartials = 1024;  // blocks of the first stage

struct Identity {
  template <typename A>
  __device__ double operator()(A x) const {
    return static_cast<double>(x);
  }
};
struct Squared {
  template <typename A>
  __device__ double operator()(A x) const {
    return static_cast<double>(x) * static_cast<double>(x);
  }
};
struct Nonfinite {
  template <typename A>
  __device__ double operator()(A x) const {
    return std::isfinite(x) ? 0 : 1;
  }
};

// What becomes of the sum.
struct Finish {
  enum class Kind : std::uint8_t { scale_f64, scale_f32, root_f64, add_i32 } kind;
  double factor;
  void* y;
  __device__ void operator()(double sum) const {
    switch (kind) {
      case Kind::scale_f64:
        *static_cast<double*>(y) = factor * sum;
        break;
      case Kind::scale_f32:
        *static_cast<float*>(y) = static_cast<float>(factor * sum);
        break;
      case Kind::root_f64:
        *static_cast<double*>(y) = std::sqrt(sum);
        break;
      case Kind::add_i32:
        *static_cast<std::int32_t*>(y) += static_cast<std::int32_t>(sum < 2147483647.0 ? sum : 2147483647.0);
        break;
    }
  }
};

template <typename T, typename F>
__global__ void __launch_bounds__(kBlockThreads)
    reduce_kernel(const T* x, std::int64_t count, bool packed, F f, double* partial, Finish finish) {
  using A = Accumulation<T>;
  constexpr int kN = kPackOf<T>;
  double sum = 0;
  for_packs<kN>(
      count, packed,
      [&](std::int64_t i) {
        const Pack<T, kN> pack = load_pack<kN>(x + i);
        for (int k = 0; k < kN; ++k) sum += f(static_cast<A>(pack.v[k]));
      },
      [&](std::int64_t i) { sum += f(static_cast<A>(x[i])); });
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    finish(sum);
  } else {
    partial[blockIdx.x] = sum;
  }
}

__global__ void __launch_bounds__(kBlockThreads) finish_kernel(const double* partial, int count, Finish finish) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockThreads) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) finish(sum);
}

template <typename T, typename F>
void reduce(Backend& backend, ConstView x, F f, Finish finish, Stream stream) {
  // Eight packs a thread at least; an empty x still gives its sum, 0.
  const std::int64_t useful = ceil_div(x.numel(), std::int64_t{8} * kPackOf<T> * kBlockThreads);
  const std::int64_t most = std::min<std::int64_t>(kMaxPartials, std::int64_t{4} * multiprocessor_count());
  const std::int64_t blocks = std::clamp<std::int64_t>(useful, 1, most);
  const Workspace<double> partial(backend, blocks, stream);
  launch(reduce_kernel<T, F>, blocks, kBlockThreads, 0, stream, x.as<T>(), x.numel(), aligned(x.as<T>()), f,
         partial.get(), finish);
  if (blocks > 1) {
    launch(finish_kernel, 1, kBlockThreads, 0, stream, partial.get(), static_cast<int>(blocks), finish);
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    broadcast_kernel(const Accumulation<T>* x, Accumulation<T> factor, T* y, std::int64_t count, bool packed) {
  constexpr int kN = kPackOf<T>;
  Pack<T, kN> pack;
  for (int k = 0; k < kN; ++k) pack.v[k] = narrow<T>(factor * x[0]);
  for_packs<kN>(
      count, packed, [&](std::int64_t i) { store_pack<kN>(y + i, pack); }, [&](std::int64_t i) { y[i] = pack.v[0]; });
}

template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    sum_rows_kernel(const T* x, std::int64_t rows, std::int64_t columns, std::int64_t rows_per_block,
                    Accumulation<T>* partial) {
  using A = Accumulation<T>;
  RETORT_SHARED(A, shared, N * kBlockThreads);
  const ColumnShare share(rows, rows_per_block, N);
  A sum[N] = {};
  if (share.column < columns) {
    RETORT_UNROLL(4)
    for (std::int64_t row = share.first; row < share.last; row += blockDim.y) {
      const Pack<T, N> pack = load_pack<N>(x + row * columns + share.column);
      for (int k = 0; k < N; ++k) sum[k] += static_cast<A>(pack.v[k]);
    }
  }
  sum_over_rows(sum, shared);
  if (threadIdx.y == 0 && share.column < columns) {
    for (int k = 0; k < N; ++k) partial[blockIdx.x * columns + share.column + k] = sum[k];
  }
}

}  // namespace

void CudaKernels::sum(ConstView x, double factor, View y, Stream stream) {
  const auto kind = y.dtype == DType::f64 ? Finish::Kind::scale_f64 : Finish::Kind::scale_f32;
  for_floating(x.dtype, [&]<typename T>() { reduce<T>(*this, x, Identity{}, {kind, factor, y.data}, stream); });
}

void CudaKernels::norm(ConstView x, View y, Stream stream) {
  const Finish finish{Finish::Kind::root_f64, 1, y.data};
  if (x.dtype == DType::f64) {
    reduce<double>(*this, x, Squared{}, finish, stream);
  } else {
    reduce<float>(*this, x, Squared{}, finish, stream);
  }
}

void CudaKernels::accumulate_nonfinite(ConstView x, View y, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    reduce<T>(*this, x, Nonfinite{}, {Finish::Kind::add_i32, 1, y.data}, stream);
  });
}

void CudaKernels::broadcast(ConstView x, double factor, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    launch(broadcast_kernel<T>, grid_for(ceil_div(y.numel(), kPackOf<T>)), kBlockThreads, 0, stream, x.as<A>(),
           static_cast<A>(factor), y.as<T>(), y.numel(), aligned(y.as<T>()));
  });
}

void CudaKernels::sum_rows(ConstView x, View y, Stream stream) {
  const std::int64_t rows = x.shape.rows(), columns = x.shape.last();
  if (rows == 0) return fill(y, 0, stream);
  for_floating(x.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    constexpr int kN = kPackOf<T>;
    const bool packed = columns % kN == 0 && aligned(x.as<T>());
    const ColumnPlan plan = plan_columns(rows, columns, packed ? kN : 1, 4);
    const Workspace<A> partial(*this, plan.row_blocks() * columns, stream);
    launch(packed ? sum_rows_kernel<T, kN> : sum_rows_kernel<T, 1>, plan.grid, plan.block, 0, stream, x.as<T>(), rows,
           columns, plan.rows_per_block, partial.get());
    launch(sum_partials_kernel<A>, ceil_div(columns, kMergeColumns), dim3(kMergeColumns, kMergeRows), 0, stream,
           partial.get(), plan.row_blocks(), columns, y.as<A>(), static_cast<A*>(nullptr));
  });
}

}  // namespace retort::kernels
