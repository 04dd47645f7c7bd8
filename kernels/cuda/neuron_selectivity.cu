// Neuron selectivity transfer. With the student's and the teacher's columns stacked, u = [s; t], weights
// w = [1 / Cs; -1 / Ct] and products g_ij = u_i u_j, a sample's loss is sum_ij w_i w_j g_ij² and its gradient
// 4 w_i sum_j w_j g_ij u_j: a product of tiles for each, with the student's rows of g in memory between them.
#include "kernels/cuda/common.h"
#include "kernels/cuda/partials.h"

namespace retort::kernels {
namespace {

constexpr int kTile = 64, kDepth = 16;  // a block's tile, and the piece of the inner axis that is in shared memory
constexpr int kPitch = kTile + 4;
constexpr int kSide = 4;  // a thread's tile
constexpr int kAcross = kTile / kSide;
static_assert(kAcross * kAcross == kBlockThreads);

__device__ inline int own_row() {
  return static_cast<int>(threadIdx.x) / kAcross * kSide;
}
__device__ inline int own_column() {
  return static_cast<int>(threadIdx.x) % kAcross * kSide;
}

// sum[m][n] += sum over k < depth of a(own_row() + m, k) b(k, own_column() + n). Values beyond the edges are 0.
// kColumnsFirst: b lies in memory with its columns next to each other, else with k.
template <bool kColumnsFirst, typename A, typename LoadA, typename LoadB>
__device__ inline void multiply_tile(std::int64_t depth, const LoadA& a, const LoadB& b, A (&sum)[kSide][kSide]) {
  RETORT_SHARED(A, tile_a, kDepth * kPitch);
  RETORT_SHARED(A, tile_b, kDepth * kPitch);
  for (std::int64_t first = 0; first < depth; first += kDepth) {
    __syncthreads();  // the last piece's readers are done
    for (int e = static_cast<int>(threadIdx.x); e < kTile * kDepth; e += kBlockThreads) {
      const int row = e / kDepth, k = e % kDepth;
      tile_a[k * kPitch + row] = first + k < depth ? a(row, first + k) : A(0);
      const int bk = kColumnsFirst ? e / kTile : k, column = kColumnsFirst ? e % kTile : row;
      tile_b[bk * kPitch + column] = first + bk < depth ? b(first + bk, column) : A(0);
    }
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
      A left[kSide], right[kSide];
      for (int m = 0; m < kSide; ++m) left[m] = tile_a[k * kPitch + own_row() + m];
      for (int n = 0; n < kSide; ++n) right[n] = tile_b[k * kPitch + own_column() + n];
      for (int m = 0; m < kSide; ++m) {
        for (int n = 0; n < kSide; ++n) sum[m][n] += left[m] * right[n];
      }
    }
  }
}

// Tiles of rows of u: first those of s, then those of t.
struct Stack {
  std::int64_t cs, ct, features;
  std::int64_t s_tiles, t_tiles;

  Stack(std::int64_t student, std::int64_t teacher, std::int64_t d)
      : cs(student), ct(teacher), features(d), s_tiles(ceil_div(cs, kTile)), t_tiles(ceil_div(ct, kTile)) {}
  RETORT_HOST_DEVICE std::int64_t rows() const { return cs + ct; }
  RETORT_HOST_DEVICE std::int64_t tiles() const { return s_tiles + t_tiles; }
};

// The rows that a tile covers.
template <typename A>
struct StackTile {
  const A* rows;
  std::int64_t count;  // of rows
  std::int64_t first;  // in u
  double weight;
  bool of_student;

  __device__ StackTile(const Stack& stack, const A* s, const A* t, std::int64_t sample, std::int64_t tile)
      : of_student(tile < stack.s_tiles) {
    const std::int64_t row = (of_student ? tile : tile - stack.s_tiles) * kTile;
    const std::int64_t channels = of_student ? stack.cs : stack.ct;
    rows = (of_student ? s : t) + (sample * channels + row) * stack.features;
    count = channels - row < kTile ? channels - row : kTile;
    first = (of_student ? 0 : stack.cs) + row;
    weight = (of_student ? 1.0 : -1.0) / static_cast<double>(channels);
  }
};

// A tile of g: its part of the loss to `partial`, one value a block; w_i w_j g_ij of the student's rows to `weighted`
// [sample, Cs, Cs + Ct], which may be null.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    selectivity_products_kernel(const A* s, const A* t, Stack stack, A* weighted, double* partial) {
  const StackTile<A> down(stack, s, t, blockIdx.z, blockIdx.x), across(stack, s, t, blockIdx.z, blockIdx.y);
  double loss = 0;
  if (down.of_student || !across.of_student) {  // the teacher's products with the student are counted once, twofold
    A sum[kSide][kSide] = {};
    multiply_tile<false>(
        stack.features,
        [&](int row, std::int64_t k) { return row < down.count ? down.rows[row * stack.features + k] : A(0); },
        [&](std::int64_t k, int column) {
          return column < across.count ? across.rows[column * stack.features + k] : A(0);
        },
        sum);
    A squares = 0;
    const double weight = down.weight * across.weight;
    const bool keep = weighted != nullptr && down.of_student;
    for (int m = 0; m < kSide; ++m) {
      for (int n = 0; n < kSide; ++n) {
        const int row = own_row() + m, column = own_column() + n;
        squares += sum[m][n] * sum[m][n];
        if (keep && row < down.count && column < across.count) {
          weighted[(blockIdx.z * stack.cs + down.first + row) * stack.rows() + across.first + column] =
              static_cast<A>(weight) * sum[m][n];
        }
      }
    }
    loss = (down.of_student == across.of_student ? 1 : 2) * weight * static_cast<double>(squares);
  }
  loss = block_sum(loss);
  if (threadIdx.x == 0) partial[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = loss;
}

// gradient = factor * weighted u
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    selectivity_gradient_kernel(const A* s, const A* t, const A* weighted, Stack stack, A factor, A* gradient) {
  const std::int64_t sample = blockIdx.z, first_row = static_cast<std::int64_t>(blockIdx.x) * kTile,
                     first_column = static_cast<std::int64_t>(blockIdx.y) * kTile;
  weighted += (sample * stack.cs + first_row) * stack.rows();
  s += sample * stack.cs * stack.features;
  t += sample * stack.ct * stack.features;
  A sum[kSide][kSide] = {};
  multiply_tile<true>(
      stack.rows(),
      [&](int row, std::int64_t k) { return first_row + row < stack.cs ? weighted[row * stack.rows() + k] : A(0); },
      [&](std::int64_t k, int column) {
        if (first_column + column >= stack.features) return A(0);
        return (k < stack.cs ? s + k * stack.features : t + (k - stack.cs) * stack.features)[first_column + column];
      },
      sum);
  for (int m = 0; m < kSide; ++m) {
    for (int n = 0; n < kSide; ++n) {
      const std::int64_t row = first_row + own_row() + m, column = first_column + own_column() + n;
      if (row < stack.cs && column < stack.features) {
        gradient[(sample * stack.cs + row) * stack.features + column] = factor * sum[m][n];
      }
    }
  }
}

template <typename A>
void run_selectivity(Backend& backend, ConstView s, ConstView t, View loss, View gradient, Stream stream) {
  const std::int64_t samples = s.shape[0];
  const Stack stack(s.shape[1], t.shape[1], s.shape[2]);
  const double share = 1 / static_cast<double>(samples);
  const std::int64_t products = stack.cs * stack.rows(), tiles = stack.tiles() * stack.tiles();
  // As many samples at a time as leave the products some 64 MB.
  constexpr std::int64_t kMost = 65535;  // extent of a grid's last axis
  const std::int64_t room = (std::int64_t{64} << 20) / static_cast<std::int64_t>(sizeof(A)) / products;
  const std::int64_t group = std::clamp<std::int64_t>(room, 1, std::min(samples, kMost));
  const Workspace<double> partial(backend, samples * tiles, stream);
  const Workspace<A> weighted(backend, gradient ? group * products : 1, stream);
  for (std::int64_t first = 0; first < samples; first += group) {
    const auto here = static_cast<unsigned>(std::min(group, samples - first));
    const A *const from_s = s.as<A>() + first * stack.cs * stack.features, *const from_t =
                                                                               t.as<A>() +
                                                                               first * stack.ct * stack.features;
    const auto all = static_cast<unsigned>(stack.tiles());
    launch(selectivity_products_kernel<A>, dim3(all, all, here), kBlockThreads, 0, stream, from_s, from_t, stack,
           gradient ? weighted.get() : nullptr, partial.get() + first * tiles);
    if (!gradient) continue;
    const dim3 grid(static_cast<unsigned>(stack.s_tiles), static_cast<unsigned>(ceil_div(stack.features, kTile)), here);
    launch(selectivity_gradient_kernel<A>, grid, kBlockThreads, 0, stream, from_s, from_t, weighted.get(), stack,
           static_cast<A>(4 * share), gradient.as<A>() + first * stack.cs * stack.features);
  }
  launch(finish_loss_kernel<A>, 1, kBlockThreads, 0, stream, partial.get(), samples * tiles, share, loss.as<A>());
}

}  // namespace

void CudaKernels::neuron_selectivity(ConstView s, ConstView t, View loss, View gradient, Stream stream) {
  for_accumulated(s.dtype, [&]<typename A>() { run_selectivity<A>(*this, s, t, loss, gradient, stream); });
}

}  // namespace retort::kernels
