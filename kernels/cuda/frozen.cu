// What frozen networks from elsewhere need beyond the operators that are trained.
#include "kernels/cuda/map.h"
#include "kernels/scalar_math.h"
#include "kernels/walk.h"

namespace retort::kernels {
namespace {

// --- y = f(x) ------------------------------------------------------------------------------------------------------

template <typename A>
struct Apply {
  Unary kind;
  A alpha, beta;
  __device__ A operator()(A x) const { return apply(kind, x, alpha, beta); }  // the same way for a whole launch
};

template <typename A>
struct Combine {
  Binary kind;
  __device__ A operator()(A a, A b) const { return apply(kind, a, b); }
};

// --- walks ---------------------------------------------------------------------------------------------------------

// A coalesced Walk as kernels take it: in plain arrays.
struct Axes {
  int rank;
  std::int64_t extents[Walk::kMaxRank], a[Walk::kMaxRank], b[Walk::kMaxRank];

  explicit Axes(const Walk& walk) : rank(walk.rank), extents{}, a{}, b{} {
    std::copy(walk.extents.begin(), walk.extents.end(), extents);
    std::copy(walk.a.begin(), walk.a.end(), a);
    std::copy(walk.b.begin(), walk.b.end(), b);
  }
  std::int64_t last(const std::int64_t (&of)[Walk::kMaxRank]) const { return of[rank - 1]; }
  // Whether every step but those along the last axis is a multiple of n.
  bool whole(const std::int64_t (&strides)[Walk::kMaxRank], std::int64_t n) const {
    return std::all_of(strides, strides + rank - 1, [n](std::int64_t stride) { return stride % n == 0; });
  }
};

// Where the i-th element of the walk lies in both operands.
struct Where {
  std::int64_t a = 0, b = 0;
  __device__ Where(const Axes& axes, std::int64_t i) {
    for (int k = axes.rank - 1; k >= 0; --k) {
      const std::int64_t index = i % axes.extents[k];
      i /= axes.extents[k];
      a += index * axes.a[k];
      b += index * axes.b[k];
    }
  }
};

// N elements along the last axis, `step` apart; a pack where that is 1.
template <int N, typename T>
__device__ inline Pack<T, N> load_along(const T* at, std::int64_t step) {
  if (step == 1) return load_pack<N>(at);
  Pack<T, N> pack;
  for (int k = 0; k < N; ++k) pack.v[k] = at[k * step];
  return pack;
}

// A pack of N results a thread.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    walk_kernel(const T* a, const T* b, T* y, std::int64_t packs, Axes axes, Combine<Accumulation<T>> f) {
  using A = Accumulation<T>;
  const std::int64_t a_step = axes.a[axes.rank - 1], b_step = axes.b[axes.rank - 1];
  for_packs<1>(
      packs, false, [](std::int64_t) {},
      [&](std::int64_t i) {
        const Where at(axes, i * N);
        const Pack<T, N> pa = load_along<N>(a + at.a, a_step), pb = load_along<N>(b + at.b, b_step);
        Pack<T, N> py;
        for (int k = 0; k < N; ++k) py.v[k] = narrow<T>(f(static_cast<A>(pa.v[k]), static_cast<A>(pb.v[k])));
        store_pack<N>(y + i * N, py);
      });
}

template <typename T>
void combine(ConstView a, ConstView b, Binary kind, const Walk& walk, View y, Stream stream) {
  constexpr int kN = kPackOf<T>;
  const Combine<Accumulation<T>> f{kind};
  if (walk.rank == 1 && walk.a[0] == 1 && walk.b[0] == 1) return map<T>(a, b, y, f, stream);
  const Axes axes(walk);
  // An operand that is dense along the last axis is loaded in packs, which must not begin in the middle of one.
  const auto packs_of = [&](const T* from, const std::int64_t(&strides)[Walk::kMaxRank]) {
    return axes.last(strides) != 1 || (aligned(from) && axes.whole(strides, kN));
  };
  const bool packed = axes.last(axes.extents) % kN == 0 && aligned(y.as<T>()) && packs_of(a.as<T>(), axes.a) &&
                      packs_of(b.as<T>(), axes.b);
  const std::int64_t threads = packed ? y.numel() / kN : y.numel();
  launch(packed ? walk_kernel<T, kN> : walk_kernel<T, 1>, grid_for(threads), kBlockThreads, 0, stream, a.as<T>(),
         b.as<T>(), y.as<T>(), threads, axes, f);
}

template <typename Word>
__global__ void __launch_bounds__(kBlockThreads)
    strided_copy_kernel(const Word* x, Word* y, std::int64_t count, Axes axes) {
  for_packs<1>(
      count, false, [](std::int64_t) {},
      [&](std::int64_t i) {
        const Where at(axes, i);
        y[at.b] = x[at.a];
      });
}

using Word16 = Pack<std::uint32_t, 4>;

// Copies elements of `size` bytes in words of sizeof(Word) where whole words lie together in both.
template <typename Word>
bool copy_in(const std::uint8_t* x, std::uint8_t* y, std::int64_t size, Walk walk, Stream stream) {
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Word));
  if (size > kBytes) return false;
  const std::int64_t n = kBytes / size;  // elements a word
  const auto last = static_cast<std::size_t>(walk.rank - 1);
  if (n > 1) {
    const Axes axes(walk);
    const auto misplaced = (reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y)) % kBytes;
    if (misplaced != 0 || walk.a[last] != 1 || walk.b[last] != 1 || walk.extents[last] % n != 0) return false;
    if (!axes.whole(axes.a, n) || !axes.whole(axes.b, n)) return false;
    walk.extents[last] /= n;
    for (std::size_t k = 0; k < last; ++k) {
      walk.a[k] /= n;
      walk.b[k] /= n;
    }
  }
  const std::int64_t count = count_of(walk);
  launch(strided_copy_kernel<Word>, grid_for(count), kBlockThreads, 0, stream, reinterpret_cast<const Word*>(x),
         reinterpret_cast<Word*>(y), count, Axes(walk));
  return true;
}

}  // namespace

void CudaKernels::unary(ConstView x, Unary kind, double alpha, double beta, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() {
    using A = Accumulation<T>;
    map<T>(x, {}, y, Apply<A>{kind, static_cast<A>(alpha), static_cast<A>(beta)}, stream);
  });
}

void CudaKernels::binary(ConstView a, ConstView b, Binary kind, const Walk& walk, View y, Stream stream) {
  if (y.numel() == 0) return;
  for_floating(y.dtype, [&]<typename T>() { combine<T>(a, b, kind, coalesced(walk), y, stream); });
}

void CudaKernels::strided_copy(ConstView x, std::int64_t x_offset, View y, std::int64_t y_offset, const Walk& walk,
                               Stream stream) {
  if (count_of(walk) == 0) return;
  const auto size = static_cast<std::int64_t>(size_of(x.dtype));
  const std::uint8_t* const from = x.as<std::uint8_t>() + x_offset * size;
  std::uint8_t* const to = y.as<std::uint8_t>() + y_offset * size;
  const auto copied = [&, simple = coalesced(walk)]<typename Word>(Word) {
    return copy_in<Word>(from, to, size, simple, stream);
  };
  static_cast<void>(copied(Word16{}) || copied(std::uint64_t{}) || copied(std::uint32_t{}) || copied(std::uint16_t{}) ||
                    copied(std::uint8_t{}));
}

}  // namespace retort::kernels
