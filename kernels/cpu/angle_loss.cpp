// The angle loss of relational distillation: B³ cosines from squared distances by the law of cosines,
//   c_ijk = ½ (a_ij + a_ik - a_jk) r_ij r_ik,  r = 1 / sqrt(a),
// two rows of them at a time. The derivative of the loss by c, w_ijk, is symmetric in j and k, so
//   dL/da_ij = sum_k w_ijk (r_ij r_ik - c_ijk r_ij²)  as an edge at its anchor i (as j and as k)
//            - ½ sum_i' w_i'ij r_i'i r_i'j            as the side opposite to anchor i'.
#include <cassert>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/relations.h"

namespace retort::kernels {
namespace cpu {
namespace {

// Anchors are dealt to this many groups, each with a gradient of its own to add to: the number depends neither on the
// batch nor on the threads.
constexpr std::int64_t kGroups = 8;

template <typename A>
struct Relations {
  const A* squares;
  std::vector<A> inverses;  // 1 / distance; 0 where samples coincide
  std::int64_t batch;

  Relations(ConstView view, double epsilon)
      : squares(view.as<A>()), inverses(static_cast<std::size_t>(view.numel())), batch(view.shape[0]) {
    const A least = static_cast<A>(epsilon * epsilon);
    for (std::int64_t i = 0; i < view.numel(); ++i) {
      inverses[static_cast<std::size_t>(i)] = squares[i] <= least ? A(0) : A(1) / std::sqrt(squares[i]);
    }
  }
  const A* square(std::int64_t row) const { return squares + row * batch; }
  const A* inverse(std::int64_t row) const { return inverses.data() + row * batch; }
};

// The sums over k for one anchor i and one j.
template <typename A>
struct Triplets {
  A loss = 0, edge = 0, cosine = 0;  // of the losses, of w_ijk r_ik, of w_ijk c_ijk
};

template <bool kGradient, typename A>
Triplets<A> triplets(const Relations<A>& student, const Relations<A>& teacher, std::int64_t i, std::int64_t j,
                     A* opposite) {
  const std::int64_t batch = student.batch;
  const A *const s_i = student.square(i), *const s_j = student.square(j), *const s_inverse = student.inverse(i);
  const A *const t_i = teacher.square(i), *const t_j = teacher.square(j), *const t_inverse = teacher.inverse(i);
  const A s_ij = s_i[j], t_ij = t_i[j], s_half = A(0.5) * s_inverse[j], t_half = A(0.5) * t_inverse[j];
  A loss = 0, edge = 0, cosine = 0;
#pragma omp simd reduction(+ : loss, edge, cosine)
  for (std::int64_t k = 0; k < batch; ++k) {
    const A s_cosine = (s_ij + s_i[k] - s_j[k]) * s_half * s_inverse[k];
    const A d = s_cosine - (t_ij + t_i[k] - t_j[k]) * t_half * t_inverse[k];
    // Smooth L1 with one select, which GCC keeps in vector registers: ½ d², less ½ (|d| - 1)² where |d| > 1.
    const A over = std::abs(d) - A(1), excess = over > A(0) ? over : A(0);
    const A w = d - std::copysign(excess, d);
    loss += d * d - excess * excess;
    if constexpr (kGradient) {
      edge += w * s_inverse[k];
      cosine += w * s_cosine;
      opposite[k] -= w * s_inverse[k] * s_half;
    }
  }
  return {A(0.5) * loss, edge, cosine};
}

// All triplets with these anchors: the loss, and what they add to the gradient.
template <bool kGradient, typename A>
double anchors(const Relations<A>& student, const Relations<A>& teacher, std::int64_t begin, std::int64_t end,
               A* gradient) {
  const std::int64_t batch = student.batch;
  double total = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    for (std::int64_t j = 0; j < batch; ++j) {
      const Triplets<A> sums = triplets<kGradient>(student, teacher, i, j, gradient + (kGradient ? j * batch : 0));
      total += static_cast<double>(sums.loss);
      if constexpr (kGradient) {
        const A inverse = student.inverse(i)[j];
        gradient[i * batch + j] += inverse * (sums.edge - inverse * sums.cosine);
      }
    }
  }
  return total;
}

template <typename A>
void angle_loss(ConstView s, ConstView t, double epsilon, View loss, View gradient) {
  const std::int64_t batch = s.shape[0], count = batch * batch;
  const Relations<A> student(s, epsilon), teacher(t, epsilon);
  const auto partial = std::make_unique_for_overwrite<A[]>(static_cast<std::size_t>(gradient ? kGroups * count : 0));
  const double total = sum_of_rows(kGroups, batch * count / kGroups, [&](std::int64_t g) {
    const std::int64_t begin = batch * g / kGroups, end = batch * (g + 1) / kGroups;
    if (!gradient) return anchors<false, A>(student, teacher, begin, end, nullptr);
    A* const own = partial.get() + g * count;
    std::fill(own, own + count, A(0));
    return anchors<true>(student, teacher, begin, end, own);
  });
  const double share = 1 / static_cast<double>(count * batch);
  loss.as<A>()[0] = static_cast<A>(share * total);
  if (!gradient) return;
  for (std::int64_t e = 0; e < count; ++e) {
    A sum = 0;
    for (std::int64_t g = 0; g < kGroups; ++g) sum += partial[static_cast<std::size_t>(g * count + e)];
    gradient.as<A>()[e] = static_cast<A>(share) * sum;
  }
}

}  // namespace
}  // namespace cpu

void CpuBackend::angle_loss(ConstView s, ConstView t, double epsilon, View loss, View gradient, Stream) {
  assert(s.shape == t.shape && s.dtype == t.dtype);
  cpu::dispatch_accumulated(
      s.dtype, [&]<typename A>(std::type_identity<A>) { cpu::angle_loss<A>(s, t, epsilon, loss, gradient); });
}

}  // namespace retort::kernels
