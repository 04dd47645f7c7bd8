// Losses between the relations that the samples of a batch have to each other: small matrices [B, B], in f64 or f32.
#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/relations.h"

namespace retort::kernels {
namespace cpu {
namespace {

// --- squared distances -------------------------------------------------------------------------------------------

// out[j] = |x_i - x_j|² for four rows j from `first` on; beyond `last` the last one again.
template <typename A>
void distances_to_four(const A* x, std::int64_t features, std::int64_t i, std::int64_t first, std::int64_t last,
                       A (&out)[4]) {
  const auto row = [&](std::int64_t j) { return x + std::min(first + j, last - 1) * features; };
  const A *const own = x + i * features, *const r0 = row(0), *const r1 = row(1), *const r2 = row(2), *const r3 = row(3);
  A s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (std::int64_t d = 0; d < features; ++d) {
    const A d0 = own[d] - r0[d], d1 = own[d] - r1[d], d2 = own[d] - r2[d], d3 = own[d] - r3[d];
    s0 += d0 * d0;
    s1 += d1 * d1;
    s2 += d2 * d2;
    s3 += d3 * d3;
  }
  out[0] = s0, out[1] = s1, out[2] = s2, out[3] = s3;
}

// Row i from the diagonal on, and its mirror image.
template <typename A>
void distances_of_row(const A* x, std::int64_t batch, std::int64_t features, std::int64_t i, A* y) {
  for (std::int64_t j = i; j < batch; j += 4) {
    A four[4];
    distances_to_four(x, features, i, j, batch, four);
    for (std::int64_t k = j; k < std::min(batch, j + 4); ++k) y[i * batch + k] = y[k * batch + i] = four[k - j];
  }
}

template <typename A>
void distances(const A* x, std::int64_t batch, std::int64_t features, A* y) {
  // Rows shrink towards the last: the first and the last together are always the same work.
  parallel_for((batch + 1) / 2, batch * features, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      distances_of_row(x, batch, features, i, y);
      if (batch - 1 - i != i) distances_of_row(x, batch, features, batch - 1 - i, y);
    }
  });
}

template <typename A>
void distances_backward(const A* x, const A* dy, std::int64_t batch, std::int64_t features, A* dx) {
  parallel_for(batch, batch * features, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const A* const own = x + i * features;
      A* const out = dx + i * features;
      const auto weight = [&](std::int64_t j) { return A(2) * (dy[i * batch + j] + dy[j * batch + i]); };
      std::fill(out, out + features, A(0));
      std::int64_t j = 0;
      for (; j + 4 <= batch; j += 4) {
        const A *const r0 = x + j * features, *const r1 = r0 + features, *const r2 = r1 + features,
                       *const r3 = r2 + features;
        const A w0 = weight(j), w1 = weight(j + 1), w2 = weight(j + 2), w3 = weight(j + 3);
#pragma omp simd
        for (std::int64_t d = 0; d < features; ++d) {
          out[d] += (w0 * (own[d] - r0[d]) + w1 * (own[d] - r1[d])) + (w2 * (own[d] - r2[d]) + w3 * (own[d] - r3[d]));
        }
      }
      for (; j < batch; ++j) {
        const A w = weight(j);
#pragma omp simd
        for (std::int64_t d = 0; d < features; ++d) out[d] += w * (own[d] - x[j * features + d]);
      }
    }
  });
}

// --- distance loss -----------------------------------------------------------------------------------------------

// The distances of a matrix of squared ones, and what they are divided by.
template <typename A>
struct Distances {
  Distances(const A* squared, std::int64_t batch, const DistanceLossParams& params)
      : values(static_cast<std::size_t>(batch * batch)) {
    const A least = static_cast<A>(params.epsilon);
    double sum = 0;
    for (std::int64_t i = 0; i < batch; ++i) {
      for (std::int64_t j = 0; j < batch; ++j) {
        const A square = squared[i * batch + j];
        const A d = i == j ? A(0) : std::sqrt(square < least ? least : square);
        values[static_cast<std::size_t>(i * batch + j)] = d;
        sum += static_cast<double>(d);
        positive += d > A(0) ? 1 : 0;
      }
    }
    // Where all samples coincide there is nothing to normalise by.
    if (params.normalize && positive > 0) mean = sum / positive;
  }
  std::vector<A> values;
  double positive = 0, mean = 1;
};

// With u = d / m and m = sum d / K over the K positive distances: dL/dd = l'(u) / m - sum(l'(u) d) / (m² K).
template <typename A>
void distance_loss(ConstView s, ConstView t, const DistanceLossParams& params, View loss, View gradient) {
  const std::int64_t batch = s.shape[0], count = batch * batch;
  const Distances<A> student(s.as<A>(), batch, params), teacher(t.as<A>(), batch, params);
  const A of_s = static_cast<A>(1 / student.mean), of_t = static_cast<A>(1 / teacher.mean);
  const A *const ds = student.values.data(), *const dt = teacher.values.data();
  std::vector<A> slopes(static_cast<std::size_t>(count));
  double total = 0, pull = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const A d = ds[i] * of_s - dt[i] * of_t;
    const A clamped = params.squared ? d : std::max(A(-1), std::min(A(1), d));
    total += static_cast<double>(params.squared ? d * d : clamped * (d - A(0.5) * clamped));
    slopes[static_cast<std::size_t>(i)] = params.squared ? d + d : clamped;
    pull += static_cast<double>(slopes[static_cast<std::size_t>(i)]) * static_cast<double>(ds[i]);
  }
  const double share = 1 / static_cast<double>(count);
  loss.as<A>()[0] = static_cast<A>(share * total);
  if (!gradient) return;
  const bool normalized = params.normalize && student.positive > 0;
  const double of_mean = normalized ? pull / (student.mean * student.mean * student.positive) : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    // Diagonal and clamped entries do not depend on s.
    const bool open = i % (batch + 1) != 0 && s.as<A>()[i] > static_cast<A>(params.epsilon);
    const double slope = static_cast<double>(slopes[static_cast<std::size_t>(i)]) / student.mean - of_mean;
    gradient.as<A>()[i] = static_cast<A>(open ? share * 0.5 * slope / static_cast<double>(ds[i]) : 0.0);
  }
}

// --- probabilities -----------------------------------------------------------------------------------------------

// One row: its part of the sum; its gradient, times `factor`, where asked for.
template <typename A>
double transfer_row(const A* s, const A* t, std::int64_t batch, double epsilon, double factor, A* gradient) {
  double sum_s = 0, sum_t = 0, loss = 0, pull = 0;
  // A product of unit vectors may fall below -1 by its rounding.
  const auto unnormalized = [](A cosine) { return cosine < A(-1) ? 0.0 : 0.5 * (static_cast<double>(cosine) + 1); };
  for (std::int64_t j = 0; j < batch; ++j) {
    sum_s += unnormalized(s[j]);
    sum_t += unnormalized(t[j]);
  }
  const auto probability = [&](A cosine, double sum) { return unnormalized(cosine) / sum; };
  for (std::int64_t j = 0; j < batch; ++j) {
    const double ps = probability(s[j], sum_s), pt = probability(t[j], sum_t);
    loss += pt * std::log((pt + epsilon) / (ps + epsilon));
    pull -= pt / (ps + epsilon) * ps;
  }
  if (gradient == nullptr) return loss;
  for (std::int64_t j = 0; j < batch; ++j) {
    const double ps = probability(s[j], sum_s), pt = probability(t[j], sum_t);
    gradient[j] = static_cast<A>(factor * 0.5 * (-pt / (ps + epsilon) - pull) / sum_s);
  }
  return loss;
}

template <typename A>
void probability_transfer(ConstView s, ConstView t, double epsilon, View loss, View gradient) {
  constexpr std::int64_t kLogCost = 16;
  const std::int64_t batch = s.shape[0];
  const double share = 1 / static_cast<double>(batch * batch);
  loss.as<A>()[0] = static_cast<A>(share * sum_of_rows(batch, batch * kLogCost, [&](std::int64_t i) {
                                     return transfer_row(s.as<A>() + i * batch, t.as<A>() + i * batch, batch, epsilon,
                                                         share, gradient ? gradient.as<A>() + i * batch : nullptr);
                                   }));
}

// --- congruence --------------------------------------------------------------------------------------------------

template <typename A>
A sign(A x) {
  return static_cast<A>((x > A(0)) - (x < A(0)));
}

template <typename A>
void correlation_congruence(ConstView a, ConstView b, View loss, View gradient) {
  const std::int64_t batch = a.shape[0], features = a.shape[1];
  const double share = 1 / static_cast<double>(batch - 1);
  const A factor = static_cast<A>(share);
  const double total = sum_of_rows(batch, features, [&](std::int64_t i) {
    const A *const x = a.as<A>() + i * features, *const y = b.as<A>() + i * features;
    // Of a row's neighbours the missing one counts as a row of zeros.
    const A up = i > 0 ? factor : A(0), down = i + 1 < batch ? factor : A(0);
    const std::int64_t to_up = i > 0 ? -features : 0, to_down = i + 1 < batch ? features : 0;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t k = 0; k < features; ++k) {
      sum += down * std::abs(x[k] - y[k]) * std::abs(x[k + to_down] - y[k + to_down]);
    }
    if (gradient) {
      A* const out = gradient.as<A>() + i * features;
#pragma omp simd
      for (std::int64_t k = 0; k < features; ++k) {
        const A neighbours =
            up * std::abs(x[k + to_up] - y[k + to_up]) + down * std::abs(x[k + to_down] - y[k + to_down]);
        out[k] = sign(x[k] - y[k]) * neighbours;
      }
    }
    return static_cast<double>(sum);
  });
  loss.as<A>()[0] = static_cast<A>(total);
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::pairwise_squared_distances(ConstView x, View y, Stream) {
  assert(y.numel() == x.shape[0] * x.shape[0]);
  dispatch_accumulated(
      x.dtype, [&]<typename A>(std::type_identity<A>) { distances(x.as<A>(), x.shape[0], x.shape[1], y.as<A>()); });
}

void CpuBackend::pairwise_squared_distances_backward(ConstView x, ConstView dy, View dx, Stream) {
  assert(dy.numel() == x.shape[0] * x.shape[0] && dx.numel() == x.numel());
  dispatch_accumulated(x.dtype, [&]<typename A>(std::type_identity<A>) {
    distances_backward(x.as<A>(), dy.as<A>(), x.shape[0], x.shape[1], dx.as<A>());
  });
}

void CpuBackend::distance_loss(ConstView s, ConstView t, const DistanceLossParams& params, View loss, View gradient,
                               Stream) {
  assert(s.shape == t.shape && s.dtype == t.dtype);
  dispatch_accumulated(s.dtype,
                       [&]<typename A>(std::type_identity<A>) { cpu::distance_loss<A>(s, t, params, loss, gradient); });
}

void CpuBackend::probability_transfer(ConstView s, ConstView t, double epsilon, View loss, View gradient, Stream) {
  assert(s.shape == t.shape && s.dtype == t.dtype);
  dispatch_accumulated(
      s.dtype, [&]<typename A>(std::type_identity<A>) { cpu::probability_transfer<A>(s, t, epsilon, loss, gradient); });
}

void CpuBackend::correlation_congruence(ConstView a, ConstView b, View loss, View gradient, Stream) {
  assert(a.shape == b.shape && a.dtype == b.dtype && a.shape[0] >= 2);
  dispatch_accumulated(
      a.dtype, [&]<typename A>(std::type_identity<A>) { cpu::correlation_congruence<A>(a, b, loss, gradient); });
}

}  // namespace retort::kernels
