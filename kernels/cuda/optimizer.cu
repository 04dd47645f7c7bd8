// One optimizer step over the whole arena in one kernel. Formulas and their order are PyTorch's (torch.optim.SGD, Adam,
// AdamW), so that f64 runs can be compared digit by digit.
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

constexpr int kElements = 4;  // a thread's
static_assert(kArenaChunk % (32 * kElements) == 0, "a warp's elements share the settings of one chunk");

template <typename A>
struct Step {
  OptimizerArgs::Rule rule;
  A *parameter, *moment1, *moment2;
  bf16* shadow;
  const A* gradient;
  const float *decay_scale, *lr_scale;
  const double *lr, *gradient_norm;
  const std::int32_t* step;
  double max_norm, beta1, beta2;
  A weight_decay, momentum, epsilon;
  bool nesterov;
  std::int64_t count;
};

// What is the same for every element; worked out by one thread of a block, for the powers are dear.
template <typename A>
struct Shared {
  A clip;                       // factor on the gradient
  A first_correction;           // 1 - beta1^step
  A root_of_second_correction;  // sqrt(1 - beta2^step)
};

template <typename A>
__global__ void __launch_bounds__(kBlockThreads) optimizer_kernel(Step<A> s) {
  RETORT_SHARED(Shared<A>, shared, 1);
  const bool adam = s.rule != OptimizerArgs::Rule::sgd;
  if (threadIdx.x == 0) {
    Shared<A> all{A(1), A(1), A(1)};
    if (s.gradient_norm != nullptr) {
      const double clip = s.max_norm / (s.gradient_norm[0] + 1e-6);
      all.clip = static_cast<A>(clip >= 1.0 ? 1.0 : clip);  // NaN stays NaN
    }
    if (adam) {
      const double step = s.step[0];
      all.first_correction = static_cast<A>(1 - std::pow(s.beta1, step));
      all.root_of_second_correction = static_cast<A>(std::sqrt(1 - std::pow(s.beta2, step)));
    }
    shared[0] = all;
  }
  __syncthreads();
  const Shared<A> all = shared[0];
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * kElements;
  if (first >= s.count) return;
  const std::int64_t chunk = first / kArenaChunk;
  const A lr = static_cast<A>(s.lr[0] * static_cast<double>(s.lr_scale[chunk]));
  const A decay = s.weight_decay * static_cast<A>(s.decay_scale[chunk]);
  const bool first_step = s.step[0] == 1;

  using P = Pack<A, kElements>;
  P p = load_pack<kElements>(s.parameter + first);
  const P g = load_pack<kElements>(s.gradient + first);
  P m1, m2;
  if (s.moment1 != nullptr) m1 = load_pack<kElements>(s.moment1 + first);
  if (s.moment2 != nullptr) m2 = load_pack<kElements>(s.moment2 + first);
  if (s.lr_scale[chunk] != 0) {
    for (int k = 0; k < kElements; ++k) {
      A d = g.v[k] * all.clip;
      if (!adam) {
        if (decay != A(0)) d += decay * p.v[k];
        if (s.moment1 != nullptr) {
          m1.v[k] = first_step ? d : s.momentum * m1.v[k] + d;
          d = s.nesterov ? d + s.momentum * m1.v[k] : m1.v[k];
        }
        p.v[k] -= lr * d;
      } else {
        if (s.rule == OptimizerArgs::Rule::adamw) {
          p.v[k] *= A(1) - lr * decay;
        } else if (decay != A(0)) {
          d += decay * p.v[k];
        }
        const A beta1 = static_cast<A>(s.beta1), beta2 = static_cast<A>(s.beta2);
        const A rest1 = static_cast<A>(1 - s.beta1), rest2 = static_cast<A>(1 - s.beta2);
        m1.v[k] = beta1 * m1.v[k] + rest1 * d;
        m2.v[k] = beta2 * m2.v[k] + rest2 * d * d;
        const A denominator = std::sqrt(m2.v[k]) / all.root_of_second_correction + s.epsilon;
        p.v[k] -= lr / all.first_correction * (m1.v[k] / denominator);
      }
    }
  }
  store_pack<kElements>(s.parameter + first, p);
  if (s.moment1 != nullptr) store_pack<kElements>(s.moment1 + first, m1);
  if (s.moment2 != nullptr) store_pack<kElements>(s.moment2 + first, m2);
  if (s.shadow != nullptr) {
    Pack<bf16, kElements> rounded;
    for (int k = 0; k < kElements; ++k) rounded.v[k] = narrow<bf16>(static_cast<float>(p.v[k]));
    store_pack<kElements>(s.shadow + first, rounded);
  }
}

template <typename A>
void step(const OptimizerArgs& args, Stream stream) {
  Step<A> s;
  s.rule = args.rule;
  s.parameter = args.parameter.as<A>();
  s.moment1 = args.moment1.as<A>();
  s.moment2 = args.moment2.as<A>();
  s.shadow = args.shadow.as<bf16>();
  s.gradient = args.gradient.as<A>();
  s.decay_scale = args.decay_scale.as<float>();
  s.lr_scale = args.lr_scale.as<float>();
  s.lr = args.lr.as<double>();
  s.gradient_norm = args.gradient_norm.as<double>();
  s.step = args.step.as<std::int32_t>();
  s.max_norm = args.max_norm;
  s.beta1 = args.beta1;
  s.beta2 = args.beta2;
  s.weight_decay = static_cast<A>(args.weight_decay);
  s.momentum = static_cast<A>(args.momentum);
  s.epsilon = static_cast<A>(args.epsilon);
  s.nesterov = args.nesterov;
  s.count = args.parameter.numel();
  launch(optimizer_kernel<A>, ceil_div(s.count, std::int64_t{kElements} * kBlockThreads), kBlockThreads, 0, stream, s);
}

}  // namespace

void CudaKernels::optimizer_step(const OptimizerArgs& args, Stream stream) {
  if (args.parameter.dtype == DType::f64) {
    step<double>(args, stream);
  } else {
    step<float>(args, stream);
  }
}

}  // namespace retort::kernels
