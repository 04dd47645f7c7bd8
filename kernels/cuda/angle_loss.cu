// The angle loss of relational distillation: B³ cosines from squared distances by the law of cosines,
//   c_ijk = ½ (a_ij + a_ik - a_jk) r_ij r_ik,  r = 1 / sqrt(a).
// The derivative of the loss by c, w_ijk, is symmetric in j and k, so with matrices that are symmetric
//   dL/da_pq = sum_m w_pqm (r_pq r_pm - c_pqm r_pq²)  as an edge at its anchor p (as j and as k)
//            - ½ sum_m w_mpq r_mp r_mq                as the side opposite to anchor m.
// Both sums read row m of the matrices, and those of row p: one block a row p, its threads over q.
#include "kernels/cuda/common.h"
#include "kernels/cuda/partials.h"

namespace retort::kernels {
namespace {

// 1 / distance; 0 where samples coincide.
template <typename A>
__global__ void __launch_bounds__(kBlockThreads)
    inverse_distances_kernel(const A* squares, A least, A* inverses, std::int64_t count) {
  for_packs<1>(
      count, false, [](std::int64_t) {},
      [&](std::int64_t i) { inverses[i] = squares[i] <= least ? A(0) : A(1) / std::sqrt(squares[i]); });
}

// Matrices [B, B] of squared and of inverse distances.
template <typename A>
struct Relations {
  const A* squares;
  const A* inverses;
};

// One side of a triangle.
template <typename A>
struct Side {
  A square, inverse;
  __device__ Side(const Relations<A>& of, std::int64_t at) : square(of.squares[at]), inverse(of.inverses[at]) {}
};

// The cosine between two sides that end at the anchor.
template <typename A>
__device__ inline A cosine(const Side<A>& one, const Side<A>& other, const Side<A>& opposite) {
  return A(0.5) * (one.square + other.square - opposite.square) * one.inverse * other.inverse;
}

// The derivative of smooth L1. NaN stays NaN.
template <typename A>
__device__ inline A clamp_one(A x) {
  const A low = x < A(-1) ? A(-1) : x;
  return low > A(1) ? A(1) : low;
}

// The loss over anchor p to row_loss[p]; row p of the gradient, times `factor`, where there is one.
template <typename A, bool kGradient>
__global__ void __launch_bounds__(kBlockThreads, sizeof(A) == sizeof(double) ? 2 : 4)  // left alone, ptxas spills
    angle_loss_kernel(Relations<A> student, Relations<A> teacher, std::int64_t batch, A factor, double* row_loss,
                      A* gradient) {
  const std::int64_t p = blockIdx.x;
  double loss = 0;
  for (std::int64_t q = threadIdx.x; q < batch; q += kBlockThreads) {
    const Side<A> s_pq(student, p * batch + q), t_pq(teacher, p * batch + q);
    A sum = 0, edge = 0, opposite = 0;
    RETORT_UNROLL(4)
    for (std::int64_t m = 0; m < batch; ++m) {
      const Side<A> s_pm(student, p * batch + m), t_pm(teacher, p * batch + m);
      const Side<A> s_mq(student, m * batch + q), t_mq(teacher, m * batch + q);
      const A at_p = cosine(s_pq, s_pm, s_mq), d = at_p - cosine(t_pq, t_pm, t_mq), w = clamp_one(d);
      sum += w * (d - A(0.5) * w);
      if constexpr (kGradient) {
        edge += w * (s_pm.inverse - at_p * s_pq.inverse);
        const A at_m = clamp_one(cosine(s_pm, s_mq, s_pq) - cosine(t_pm, t_mq, t_pq));
        opposite += at_m * s_pm.inverse * s_mq.inverse;
      }
    }
    loss += static_cast<double>(sum);
    if constexpr (kGradient) gradient[p * batch + q] = factor * (s_pq.inverse * edge - A(0.5) * opposite);
  }
  loss = block_sum(loss);
  if (threadIdx.x == 0) row_loss[p] = loss;
}

}  // namespace

void CudaKernels::angle_loss(ConstView s, ConstView t, double epsilon, View loss, View gradient, Stream stream) {
  const std::int64_t batch = s.shape[0], count = s.numel();
  const double share = 1 / static_cast<double>(count * batch);
  for_accumulated(s.dtype, [&]<typename A>() {
    const Workspace<A> of_s(*this, count, stream), of_t(*this, count, stream);
    const Workspace<double> row_loss(*this, batch, stream);
    const A least = static_cast<A>(epsilon * epsilon);
    launch(inverse_distances_kernel<A>, grid_for(count), kBlockThreads, 0, stream, s.as<A>(), least, of_s.get(), count);
    launch(inverse_distances_kernel<A>, grid_for(count), kBlockThreads, 0, stream, t.as<A>(), least, of_t.get(), count);
    const Relations<A> student{s.as<A>(), of_s.get()}, teacher{t.as<A>(), of_t.get()};
    launch(gradient ? angle_loss_kernel<A, true> : angle_loss_kernel<A, false>, batch, kBlockThreads, 0, stream,
           student, teacher, batch, static_cast<A>(share), row_loss.get(), gradient.as<A>());
    launch(finish_loss_kernel<A>, 1, kBlockThreads, 0, stream, row_loss.get(), batch, share, loss.as<A>());
  });
}

}  // namespace retort::kernels
