// One pass over the parameter arena. The formulas and their order are those of torch.optim, so that a run in f64 can be
// compared with PyTorch step by step.
#include <cassert>
#include <cmath>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"

namespace retort::kernels {
namespace cpu {
namespace {

// What is the same for all chunks of a step.
struct Step {
  explicit Step(const OptimizerArgs& args)
      : lr(args.lr.as<double>()[0]), number(args.step.as<std::int32_t>()[0]), first(number == 1) {
    if (args.gradient_norm) {
      const double factor = args.max_norm / (args.gradient_norm.as<double>()[0] + 1e-6);
      clip = factor > 1 ? 1 : factor;  // NaN stays NaN: it must reach the parameters' check, not vanish
    }
    correction1 = 1 - std::pow(args.beta1, number);
    correction2_root = std::sqrt(1 - std::pow(args.beta2, number));
  }
  double lr;
  int number;
  bool first;
  double clip = 1;
  double correction1 = 1, correction2_root = 1;  // Adam's
};

template <typename A>
struct Chunk {
  A* parameter;
  const A* gradient;
  A *moment1, *moment2;
  double lr, decay;  // with the chunk's factors
};

template <typename A>
void sgd(const OptimizerArgs& args, const Step& step, const Chunk<A>& chunk) {
  const A clip = static_cast<A>(step.clip), decay = static_cast<A>(chunk.decay), lr = static_cast<A>(chunk.lr);
  const A momentum = static_cast<A>(args.momentum);
  A *const p = chunk.parameter, *const velocity = chunk.moment1;
  const A* const gradient = chunk.gradient;
  if (velocity == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < kArenaChunk; ++i) p[i] -= lr * (gradient[i] * clip + decay * p[i]);
    return;
  }
  const bool first = step.first, nesterov = args.nesterov;
#pragma omp simd
  for (std::int64_t i = 0; i < kArenaChunk; ++i) {
    const A g = gradient[i] * clip + decay * p[i];
    const A v = first ? g : momentum * velocity[i] + g;
    velocity[i] = v;
    p[i] -= lr * (nesterov ? g + momentum * v : v);
  }
}

// Kingma & Ba 2015; with `decoupled`, Loshchilov & Hutter 2019.
template <typename A, bool decoupled>
void adam(const OptimizerArgs& args, const Step& step, const Chunk<A>& chunk) {
  const A clip = static_cast<A>(step.clip);
  const A in_gradient = decoupled ? A(0) : static_cast<A>(chunk.decay);
  const A shrink = decoupled ? static_cast<A>(1 - chunk.lr * chunk.decay) : A(1);
  const A beta1 = static_cast<A>(args.beta1), rest1 = static_cast<A>(1 - args.beta1);
  const A beta2 = static_cast<A>(args.beta2), rest2 = static_cast<A>(1 - args.beta2);
  const A step_size = static_cast<A>(chunk.lr / step.correction1), root = static_cast<A>(step.correction2_root);
  const A epsilon = static_cast<A>(args.epsilon);
  A *const p = chunk.parameter, *const m = chunk.moment1, *const v = chunk.moment2;
  const A* const gradient = chunk.gradient;
#pragma omp simd
  for (std::int64_t i = 0; i < kArenaChunk; ++i) {
    const A g = gradient[i] * clip + in_gradient * p[i];
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * g * g;
    p[i] = p[i] * shrink - step_size * (m[i] / (std::sqrt(v[i]) / root + epsilon));
  }
}

template <typename A>
void update(const OptimizerArgs& args, const Step& step, const Chunk<A>& chunk) {
  switch (args.rule) {
    case OptimizerArgs::Rule::sgd:
      return sgd(args, step, chunk);
    case OptimizerArgs::Rule::adam:
      return adam<A, false>(args, step, chunk);
    case OptimizerArgs::Rule::adamw:
      return adam<A, true>(args, step, chunk);
  }
}

template <typename A>
void step_chunk(const OptimizerArgs& args, const Step& step, std::int64_t index) {
  const std::int64_t at = index * kArenaChunk;
  const Chunk<A> chunk{args.parameter.as<A>() + at,
                       args.gradient.as<A>() + at,
                       args.moment1 ? args.moment1.as<A>() + at : nullptr,
                       args.moment2 ? args.moment2.as<A>() + at : nullptr,
                       step.lr * static_cast<double>(args.lr_scale.as<float>()[index]),
                       args.weight_decay * static_cast<double>(args.decay_scale.as<float>()[index])};
  // At rest: a moment that went on would move the parameter later.
  if (args.lr_scale.as<float>()[index] != 0) update(args, step, chunk);
  if (args.shadow) {
    bf16* const shadow = args.shadow.as<bf16>() + at;
    for (std::int64_t i = 0; i < kArenaChunk; ++i) shadow[i] = convert_to<bf16>(chunk.parameter[i]);
  }
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::optimizer_step(const OptimizerArgs& args, Stream) {
  assert(args.parameter.numel() % kArenaChunk == 0 && args.gradient.numel() == args.parameter.numel());
  const Step step(args);
  const auto run = [&]<typename A>(std::type_identity<A>) {
    parallel_for(args.parameter.numel() / kArenaChunk, 2 * kArenaChunk, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) step_chunk<A>(args, step, i);
    });
  };
  args.parameter.dtype == DType::f64 ? run(std::type_identity<double>{}) : run(std::type_identity<float>{});
}

}  // namespace retort::kernels
