// Losses between the relations that the samples of a batch have to each other: small matrices [B, B], in f64 or f32.
#include "kernels/cuda/common.h"
#include "kernels/cuda/partials.h"
#include "kernels/cuda/rows.h"

namespace retort::kernels {
namespace {

// --- squared distances ---------------------------------------------------------------------------------------------

constexpr int kPairs = 16, kPiece = 32;  // a block's tile of pairs, and the features in shared memory at a time
static_assert(kPairs * kPairs == kBlockThreads);

template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    distances_kernel(const A* x, std::int64_t batch, std::int64_t features, A* y) {
  RETORT_SHARED(A, rows, kPairs * (kPiece + 1));
  RETORT_SHARED(A, columns, kPairs * (kPiece + 1));
  const std::int64_t first_i = static_cast<std::int64_t>(blockIdx.y) * kPairs,
                     first_j = static_cast<std::int64_t>(blockIdx.x) * kPairs;
  const int i = static_cast<int>(threadIdx.x) / kPairs, j = static_cast<int>(threadIdx.x) % kPairs;
  const auto element = [&](std::int64_t row, std::int64_t d) {
    return row < batch && d < features ? x[row * features + d] : A(0);
  };
  A total = 0;
  for (std::int64_t first = 0; first < features; first += kPiece) {
    __syncthreads();  // the last piece's readers are done
    for (int e = static_cast<int>(threadIdx.x); e < kPairs * kPiece; e += kBlockThreads) {
      const int row = e / kPiece, d = e % kPiece;
      rows[row * (kPiece + 1) + d] = element(first_i + row, first + d);
      columns[row * (kPiece + 1) + d] = element(first_j + row, first + d);
    }
    __syncthreads();
    A sum = 0;
    for (int d = 0; d < kPiece; ++d) {
      const A difference = rows[i * (kPiece + 1) + d] - columns[j * (kPiece + 1) + d];
      sum += difference * difference;
    }
    total += sum;
  }
  if (first_i + i < batch && first_j + j < batch) y[(first_i + i) * batch + first_j + j] = total;
}

// Neighbouring threads take neighbouring features of one sample.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    distances_backward_kernel(const A* x, const A* dy, std::int64_t batch, std::int64_t features, A* dx) {
  const std::int64_t d = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x % 32;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.y) * kRowsPerBlock + threadIdx.x / 32;
  if (i >= batch || d >= features) return;
  const A own = x[i * features + d];
  A sum = 0;
  RETORT_UNROLL(4)
  for (std::int64_t j = 0; j < batch; ++j) {
    sum += (dy[i * batch + j] + dy[j * batch + i]) * (own - x[j * features + d]);
  }
  dx[i * features + d] = A(2) * sum;
}

// --- distance loss -------------------------------------------------------------------------------------------------

template <typename A>
struct DistanceOf {
  A epsilon;
  std::int64_t batch;
  __device__ A operator()(const A* squares, std::int64_t i) const {
    if (i % (batch + 1) == 0) return A(0);
    const A square = squares[i];
    return std::sqrt(square < epsilon ? epsilon : square);
  }
};

// f(i) for the elements of this thread.
template <typename F>
__device__ inline void for_elements(std::int64_t count, const F& f) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kBlockThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x; i < count; i += stride) {
    f(i);
  }
}

// The block's part of sum number `which`.
__device__ inline void store_partial(double sum, int which, double* partial) {
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[static_cast<std::int64_t>(which) * gridDim.x + blockIdx.x] = sum;
}
__device__ inline double load_sum(const double* partial, int which) {
  return total_of(partial + static_cast<std::int64_t>(which) * gridDim.x, gridDim.x);
}

// What the partial sums are of.
enum DistanceSum : int { kStudentSum, kStudentPositive, kTeacherSum, kTeacherPositive, kLossSum, kPullSum, kSums };

template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    distance_means_kernel(const A* s, const A* t, DistanceOf<A> distance, double* partial) {
  double sum_s = 0, sum_t = 0, positive_s = 0, positive_t = 0;
  for_elements(distance.batch * distance.batch, [&](std::int64_t i) {
    const A ds = distance(s, i), dt = distance(t, i);
    sum_s += static_cast<double>(ds);
    sum_t += static_cast<double>(dt);
    positive_s += ds > A(0) ? 1 : 0;
    positive_t += dt > A(0) ? 1 : 0;
  });
  store_partial(sum_s, kStudentSum, partial);
  store_partial(positive_s, kStudentPositive, partial);
  store_partial(sum_t, kTeacherSum, partial);
  store_partial(positive_t, kTeacherPositive, partial);
}

// What distances are divided by, 1 where nothing is to be; every thread of the block takes part.
__device__ inline double divisor(const double* partial, DistanceSum sum, bool normalize) {
  if (!normalize) return 1;
  const double positive = load_sum(partial, sum + 1), total = load_sum(partial, sum);
  return positive > 0 ? total / positive : 1;
}

template <typename A>
struct DistanceSlope {
  A of_s, of_t;  // 1 / divisors
  bool squared;
  A value, slope;
  __device__ void operator()(A ds, A dt) {
    const A d = ds * of_s - dt * of_t;
    const A low = d < A(-1) ? A(-1) : d;
    const A clamped = low > A(1) ? A(1) : low;
    value = squared ? d * d : clamped * (d - A(0.5) * clamped);
    slope = squared ? d + d : clamped;
  }
};

template <typename A>
__global__ void __launch_bounds__(kBlockThreads) distance_loss_kernel(const A* s, const A* t, DistanceOf<A> distance,
                                                                      bool normalize, bool squared, double* partial) {
  const double of_s = 1 / divisor(partial, kStudentSum, normalize), of_t = 1 / divisor(partial, kTeacherSum, normalize);
  DistanceSlope<A> loss{static_cast<A>(of_s), static_cast<A>(of_t), squared, 0, 0};
  double sum = 0, pull = 0;
  for_elements(distance.batch * distance.batch, [&](std::int64_t i) {
    const A ds = distance(s, i);
    loss(ds, distance(t, i));
    sum += static_cast<double>(loss.value);
    pull += static_cast<double>(loss.slope) * static_cast<double>(ds);
  });
  store_partial(sum, kLossSum, partial);
  store_partial(pull, kPullSum, partial);
}

// With u = d / m and m = sum d / K over the K positive distances: dL/dd = l'(u) / m - sum(l'(u) d) / (m² K). Diagonal
// and clamped entries do not depend on s.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    distance_gradient_kernel(const A* s, const A* t, DistanceOf<A> distance, bool normalize, bool squared,
                             const double* partial, A* gradient) {
  const double mean = divisor(partial, kStudentSum, normalize);
  const double of_t = 1 / divisor(partial, kTeacherSum, normalize);
  const double pull = load_sum(partial, kPullSum), positive = load_sum(partial, kStudentPositive);
  const double of_mean = normalize && positive > 0 ? pull / (mean * mean * positive) : 0;
  const std::int64_t count = distance.batch * distance.batch;
  const double share = 0.5 / static_cast<double>(count);
  DistanceSlope<A> loss{static_cast<A>(1 / mean), static_cast<A>(of_t), squared, 0, 0};
  for_elements(count, [&](std::int64_t i) {
    const A ds = distance(s, i);
    loss(ds, distance(t, i));
    const bool open = i % (distance.batch + 1) != 0 && s[i] > distance.epsilon;
    const double slope = static_cast<double>(loss.slope) / mean - of_mean;
    gradient[i] = static_cast<A>(open ? share * slope / static_cast<double>(ds) : 0.0);
  });
}

// --- probabilities -------------------------------------------------------------------------------------------------

// One warp a row: its part of the sum; its gradient, times `factor`, where there is one.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    probability_transfer_kernel(const A* s, const A* t, std::int64_t batch, double epsilon, double factor,
                                double* row_loss, A* gradient) {
  const std::int64_t row = row_of_warp();
  if (row >= batch) return;
  s += row * batch;
  t += row * batch;
  // A product of unit vectors may fall below -1 by its rounding.
  const auto unnormalized = [](A cosine) { return cosine < A(-1) ? 0.0 : 0.5 * (static_cast<double>(cosine) + 1); };
  double sum_s = 0, sum_t = 0, loss = 0, pull = 0;
  for_columns(batch, [&](std::int64_t c) {
    sum_s += unnormalized(s[c]);
    sum_t += unnormalized(t[c]);
  });
  sum_s = warp_sum(sum_s);
  sum_t = warp_sum(sum_t);
  for_columns(batch, [&](std::int64_t c) {
    const double ps = unnormalized(s[c]) / sum_s, pt = unnormalized(t[c]) / sum_t;
    loss += pt * std::log((pt + epsilon) / (ps + epsilon));
    pull -= pt / (ps + epsilon) * ps;
  });
  loss = warp_sum(loss);
  pull = warp_sum(pull);
  if (threadIdx.x % 32 == 0) row_loss[row] = loss;
  if (gradient == nullptr) return;
  for_columns(batch, [&](std::int64_t c) {
    const double ps = unnormalized(s[c]) / sum_s, pt = unnormalized(t[c]) / sum_t;
    gradient[row * batch + c] = static_cast<A>(factor * 0.5 * (-pt / (ps + epsilon) - pull) / sum_s);
  });
}

// --- congruence ----------------------------------------------------------------------------------------------------

// One block a row.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    congruence_kernel(const A* a, const A* b, std::int64_t features, double* row_loss, A* gradient) {
  const std::int64_t row = blockIdx.x, batch = gridDim.x;
  const A factor = A(1) / static_cast<A>(batch - 1);
  const auto size = [&](std::int64_t i, std::int64_t k) {
    return i < 0 || i >= batch ? A(0) : std::abs(a[i * features + k] - b[i * features + k]);
  };
  double sum = 0;
  for (std::int64_t k = threadIdx.x; k < features; k += kBlockThreads) {
    const A own = a[row * features + k] - b[row * features + k], below = size(row + 1, k);
    sum += static_cast<double>(std::abs(own) * below);
    if (gradient != nullptr) {
      const A sign = static_cast<A>((own > A(0)) - (own < A(0)));
      gradient[row * features + k] = sign * factor * (size(row - 1, k) + below);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) row_loss[row] = sum;
}

}  // namespace

void CudaKernels::pairwise_squared_distances(ConstView x, View y, Stream stream) {
  const auto tiles = static_cast<unsigned>(ceil_div(x.shape[0], kPairs));
  for_accumulated(x.dtype, [&]<typename A>() {
    launch(distances_kernel<A>, dim3(tiles, tiles), kBlockThreads, 0, stream, x.as<A>(), x.shape[0], x.shape[1],
           y.as<A>());
  });
}

void CudaKernels::pairwise_squared_distances_backward(ConstView x, ConstView dy, View dx, Stream stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(x.shape[1], 32)),
                  static_cast<unsigned>(ceil_div(x.shape[0], kRowsPerBlock)));
  for_accumulated(x.dtype, [&]<typename A>() {
    launch(distances_backward_kernel<A>, grid, kBlockThreads, 0, stream, x.as<A>(), dy.as<A>(), x.shape[0], x.shape[1],
           dx.as<A>());
  });
}

void CudaKernels::distance_loss(ConstView s, ConstView t, const DistanceLossParams& params, View loss, View gradient,
                                Stream stream) {
  const std::int64_t count = s.numel();
  const std::int64_t blocks = std::min<std::int64_t>(blocks_for_sum(count, 4), kBlockThreads);
  for_accumulated(s.dtype, [&]<typename A>() {
    const Workspace<double> partial(*this, kSums * blocks, stream);
    const DistanceOf<A> distance{static_cast<A>(params.epsilon), s.shape[0]};
    launch(distance_means_kernel<A>, blocks, kBlockThreads, 0, stream, s.as<A>(), t.as<A>(), distance, partial.get());
    launch(distance_loss_kernel<A>, blocks, kBlockThreads, 0, stream, s.as<A>(), t.as<A>(), distance, params.normalize,
           params.squared, partial.get());
    launch(finish_loss_kernel<A>, 1, kBlockThreads, 0, stream, partial.get() + kLossSum * blocks, blocks,
           1 / static_cast<double>(count), loss.as<A>());
    if (!gradient) return;
    launch(distance_gradient_kernel<A>, blocks, kBlockThreads, 0, stream, s.as<A>(), t.as<A>(), distance,
           params.normalize, params.squared, partial.get(), gradient.as<A>());
  });
}

void CudaKernels::probability_transfer(ConstView s, ConstView t, double epsilon, View loss, View gradient,
                                       Stream stream) {
  const std::int64_t batch = s.shape[0];
  const double share = 1 / static_cast<double>(batch * batch);
  const Workspace<double> row_loss(*this, batch, stream);
  for_accumulated(s.dtype, [&]<typename A>() {
    launch(probability_transfer_kernel<A>, grid_for_rows(batch), kBlockThreads, 0, stream, s.as<A>(), t.as<A>(), batch,
           epsilon, share, row_loss.get(), gradient.as<A>());
    launch(finish_loss_kernel<A>, 1, kBlockThreads, 0, stream, row_loss.get(), batch, share, loss.as<A>());
  });
}

void CudaKernels::correlation_congruence(ConstView a, ConstView b, View loss, View gradient, Stream stream) {
  const std::int64_t batch = a.shape[0];
  const Workspace<double> row_loss(*this, batch, stream);
  for_accumulated(a.dtype, [&]<typename A>() {
    launch(congruence_kernel<A>, batch, kBlockThreads, 0, stream, a.as<A>(), b.as<A>(), a.shape[1], row_loss.get(),
           gradient.as<A>());
    launch(finish_loss_kernel<A>, 1, kBlockThreads, 0, stream, row_loss.get(), batch,
           1 / static_cast<double>(batch - 1), loss.as<A>());
  });
}

}  // namespace retort::kernels
