// What frozen networks from elsewhere need beyond the operators that are trained.
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/parallel.h"
#include "kernels/scalar_math.h"
#include "kernels/walk.h"

namespace retort::kernels {
namespace cpu {
namespace {

// --- y = f(x) ------------------------------------------------------------------------------------------------------

double exponential(double v) {
  return std::exp(v);
}

// e^v within 2 units in the last place, in a form that compilers turn into vectors (they do not for std::exp; nor for
// this, unless told to inline it):
// v = n ln 2 + r, the Taylor polynomial of e^r for |r| <= ln(2) / 2, and 2^n by its bits, in two factors for the sake
// of subnormal and infinite results.
inline float exponential(float v) {
  constexpr float kShift = 0x1.8p23f;  // added to a small number, it leaves that number's integer part in the low bits
  v = clamp(v, -104.0f, 89.0f);        // 0 and infinity
  const float shifted = v * 1.44269504f + kShift, n = shifted - kShift;
  const float r = (v - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact in n * part
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kShift);
  const std::int32_t half = exponent >> 1;
  const auto power = [](std::int32_t e) { return std::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23); };
  return p * power(half) * power(exponent - half);
}

template <typename T>
void apply(ConstView x, Unary kind, double first, double second, View y) {
  using A = Accumulator<T>;
  const A alpha = static_cast<A>(first), beta = static_cast<A>(second);
  switch (kind) {
    case Unary::leaky_relu:
      return map<T>(x, y, [=](A v) { return v < A(0) ? alpha * v : v; });
    case Unary::clip:
      return map<T>(x, y, [=](A v) { return clamp(v, alpha, beta); });
    case Unary::sigmoid:
      return map<T>(x, y, [](A v) { return A(1) / (A(1) + exponential(-v)); });
    case Unary::hard_sigmoid:
      return map<T>(x, y, [=](A v) { return clamp(alpha * v + beta, A(0), A(1)); });
    case Unary::hard_swish:
      return map<T>(x, y, [](A v) { return v * clamp(v * (A(1) / A(6)) + A(0.5), A(0), A(1)); });
    case Unary::silu:
      return map<T>(x, y, [](A v) { return v / (A(1) + exponential(-v)); });
    case Unary::tanh:
      return map<T>(x, y, [](A v) { return std::tanh(v); });
    case Unary::erf:
      return map<T>(x, y, [](A v) { return std::erf(v); });
    case Unary::exp:
      return map<T>(x, y, [](A v) { return exponential(v); });
    case Unary::log:
      return map<T>(x, y, [](A v) { return std::log(v); });
    case Unary::sqrt:
      return map<T>(x, y, [](A v) { return std::sqrt(v); });
    case Unary::reciprocal:
      return map<T>(x, y, [](A v) { return A(1) / v; });
    case Unary::absolute:
      return map<T>(x, y, [](A v) { return std::abs(v); });
    case Unary::negative:
      return map<T>(x, y, [](A v) { return -v; });
    case Unary::floor:
      return map<T>(x, y, [](A v) { return std::floor(v); });
  }
}

// --- walks ---------------------------------------------------------------------------------------------------------

// piece(at, a, b, count) for the elements `begin` to `end` of a coalesced walk, cut where the last axis begins anew:
// `count` elements from the `at`-th, which lie from a and b on in the operands.
template <typename Piece>
void for_pieces(const Walk& walk, std::int64_t begin, std::int64_t end, const Piece& piece) {
  const auto last = static_cast<std::size_t>(walk.rank - 1);
  std::array<std::int64_t, Walk::kMaxRank> index{};
  std::int64_t a = 0, b = 0, rest = begin;
  for (std::size_t k = last + 1; k-- > 0;) {
    index[k] = rest % walk.extents[k];
    rest /= walk.extents[k];
    a += index[k] * walk.a[k];
    b += index[k] * walk.b[k];
  }
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t count = std::min(end - at, walk.extents[last] - index[last]);
    piece(at, a, b, count);
    at += count;
    a -= index[last] * walk.a[last];
    b -= index[last] * walk.b[last];
    index[last] = 0;
    for (std::size_t k = last; k-- > 0;) {
      a += walk.a[k];
      b += walk.b[k];
      if (++index[k] < walk.extents[k]) break;
      a -= walk.extents[k] * walk.a[k];
      b -= walk.extents[k] * walk.b[k];
      index[k] = 0;
    }
  }
}

// Operands that are dense or constant along the last axis, which they are in networks, get loops of their own.
template <typename T, typename F>
void combine(const T* a, std::int64_t a_step, const T* b, std::int64_t b_step, T* y, std::int64_t count, const F& f) {
  if (a_step == 1 && b_step == 1) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) y[i] = static_cast<T>(f(load(a[i]), load(b[i])));
  } else if (a_step == 1 && b_step == 0) {
    const auto v = load(*b);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) y[i] = static_cast<T>(f(load(a[i]), v));
  } else if (a_step == 0 && b_step == 1) {
    const auto v = load(*a);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) y[i] = static_cast<T>(f(v, load(b[i])));
  } else {
    for (std::int64_t i = 0; i < count; ++i) y[i] = static_cast<T>(f(load(a[i * a_step]), load(b[i * b_step])));
  }
}

template <typename T, typename F>
void walk_both(ConstView a, ConstView b, const Walk& given, View y, const F& f) {
  const Walk walk = coalesced(given);
  const auto last = static_cast<std::size_t>(walk.rank - 1);
  parallel_elements(y.numel(), [&](std::int64_t begin, std::int64_t end) {
    for_pieces(walk, begin, end, [&](std::int64_t at, std::int64_t a_at, std::int64_t b_at, std::int64_t count) {
      combine(a.as<T>() + a_at, walk.a[last], b.as<T>() + b_at, walk.b[last], y.as<T>() + at, count, f);
    });
  });
}

template <typename T>
void apply(ConstView a, ConstView b, Binary kind, const Walk& walk, View y) {
  using A = Accumulator<T>;
  switch (kind) {
    case Binary::add:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return u + v; });
    case Binary::subtract:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return u - v; });
    case Binary::multiply:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return u * v; });
    case Binary::divide:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return u / v; });
    case Binary::minimum:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return u < v || u != u ? u : v; });
    case Binary::maximum:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return u > v || u != u ? u : v; });
    case Binary::power:
      return walk_both<T>(a, b, walk, y, [](A u, A v) { return std::pow(u, v); });
  }
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::unary(ConstView x, Unary kind, double alpha, double beta, View y, Stream) {
  dispatch_floating("unary", y.dtype, [&]<typename T>(std::type_identity<T>) { apply<T>(x, kind, alpha, beta, y); });
}

void CpuBackend::binary(ConstView a, ConstView b, Binary kind, const Walk& walk, View y, Stream) {
  assert(a.dtype == y.dtype && b.dtype == y.dtype && count_of(walk) == y.numel());
  dispatch_floating("binary", y.dtype, [&]<typename T>(std::type_identity<T>) { apply<T>(a, b, kind, walk, y); });
}

void CpuBackend::strided_copy(ConstView x, std::int64_t x_offset, View y, std::int64_t y_offset, const Walk& given,
                              Stream) {
  assert(x.dtype == y.dtype);
  const std::int64_t total = count_of(given);
  if (total == 0) return;
  const Walk walk = coalesced(given);
  const auto last = static_cast<std::size_t>(walk.rank - 1);
  const std::int64_t x_step = walk.a[last], y_step = walk.b[last];
  dispatch_any("strided_copy", x.dtype, [&]<typename T>(std::type_identity<T>) {
    parallel_elements(total, [&](std::int64_t begin, std::int64_t end) {
      for_pieces(walk, begin, end, [&](std::int64_t, std::int64_t x_at, std::int64_t y_at, std::int64_t count) {
        const T* const from = x.as<T>() + x_offset + x_at;
        T* const to = y.as<T>() + y_offset + y_at;
        if (x_step == 1 && y_step == 1) {
          std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
        } else {
          for (std::int64_t i = 0; i < count; ++i) to[i * y_step] = from[i * x_step];
        }
      });
    });
  });
}

}  // namespace retort::kernels
