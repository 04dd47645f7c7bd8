// Operators that write their gradients where they belong, or add them to what has arrived: the same bits as when each
// had memory of its own, and nothing written that somebody else looks at.
#include <gtest/gtest.h>

#include "engine/ops.h"
#include "engine/tensor.h"

namespace retort {
namespace {

const Shape kImage{2, 5, 4, 3}, kWeight{3, 3, 3, 3};

// Values without a pattern, different for each salt.
Tensor leaf(const Shape& shape, int salt, DType dtype = DType::f64) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.1 + static_cast<double>((i * 37 + static_cast<std::size_t>(salt) * 101) % 89) / 60;
  }
  Tensor t = Tensor::from(values, shape).to(dtype);
  if (t.dtype() == DType::f64) t = t.clone();
  return t.set_requires_grad();
}

Tensor convolve(const Tensor& x, const Tensor& w) {
  ConvParams params;
  params.pad_h = params.pad_w = 1;
  return conv2d(x, w, Tensor(), params);
}
Tensor energy(const Tensor& x) {
  return sum(square(x));
}

std::vector<double> gradient_of(const Tensor& leaf) {
  return leaf.grad().to_doubles();
}

std::vector<double> plus(std::vector<double> a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

// The gradient of x under loss(x): each call begins anew.
template <typename Loss>
std::vector<double> alone(const Loss& loss) {
  const Tensor x = leaf(kImage, 1);
  loss(x).backward();
  return gradient_of(x);
}

TEST(GradientInPlace, ASecondConvolutionAddsToTheFirst) {
  const Tensor w1 = leaf(kWeight, 2).detach(), w2 = leaf(kWeight, 3).detach();
  for (const bool of_a_leaf : {true, false}) {
    const auto input = [&](const Tensor& x) { return of_a_leaf ? x : scale(x, 2); };
    const auto both = alone([&](const Tensor& x) {
      const Tensor h = input(x);
      return add(energy(convolve(h, w1)), energy(convolve(h, w2)));
    });
    EXPECT_EQ(both, plus(alone([&](const Tensor& x) { return energy(convolve(input(x), w1)); }),
                         alone([&](const Tensor& x) { return energy(convolve(input(x), w2)); })));
  }
}

TEST(GradientInPlace, WhatTwoShareIsNotWritten) {
  const Tensor w = leaf(kWeight, 2).detach(), x = leaf(kImage, 1), other = leaf(kImage, 4);
  const Tensor a = scale(x, 2), b = scale(other, 3);
  const Tensor convolved = convolve(a, w);
  const Tensor shared = add(a, b);  // its gradient reaches a and b as one piece of memory, before the convolution's
  add(energy(convolved), energy(shared)).backward();
  EXPECT_EQ(gradient_of(x), plus(alone([&](const Tensor& t) { return energy(convolve(scale(t, 2), w)); }),
                                 alone([&](const Tensor& t) { return energy(add(scale(t, 2), b.detach())); })));
  const Tensor again = leaf(kImage, 4);
  energy(add(a.detach(), scale(again, 3))).backward();
  EXPECT_EQ(gradient_of(other), gradient_of(again));
}

TEST(GradientInPlace, AWeightUsedTwiceGetsBoth) {
  const Tensor x = leaf(kImage, 1).detach(), first = leaf(kWeight, 2), second = leaf(kWeight, 2), w = leaf(kWeight, 2);
  energy(convolve(convolve(x, first), second)).backward();
  energy(convolve(convolve(x, w), w)).backward();
  EXPECT_EQ(gradient_of(w), plus(gradient_of(second), gradient_of(first)));

  const Tensor rows = leaf({6, 4}, 5).detach(), m = leaf({4, 4}, 6), m1 = leaf({4, 4}, 6), m2 = leaf({4, 4}, 6);
  energy(linear(linear(rows, m1, Tensor()), m2, Tensor())).backward();
  energy(linear(linear(rows, m, Tensor()), m, Tensor())).backward();
  EXPECT_EQ(gradient_of(m), plus(gradient_of(m2), gradient_of(m1)));
}

TEST(GradientInPlace, OneTensorInTwoPlacesOfAnOperator) {
  const Tensor x = leaf(kImage, 1).detach(), gamma = leaf({3}, 7), beta = leaf({3}, 7), both = leaf({3}, 7);
  const auto normalized = [&](const Tensor& g, const Tensor& b) {
    const BatchNormStatistics statistics{Tensor::zeros({3}, DType::f64, {}), Tensor::full({3}, 1.0, DType::f64, {}),
                                         Tensor::zeros({1}, DType::i32, {})};
    return batch_norm_training(x, Tensor(), g, b, statistics, {.act = Activation::relu});
  };
  for (const Tensor& t : {gamma, beta, both}) {  // with buffers, which a first contribution overwrites
    Tensor handle = t;
    handle.set_grad_buffer(Tensor::full({3}, 1e9, DType::f64, {}));
  }
  energy(normalized(gamma, beta)).backward();
  energy(normalized(both, both)).backward();
  EXPECT_EQ(gradient_of(both), plus(gradient_of(gamma), gradient_of(beta)));
}

TEST(GradientInPlace, ABufferHoldsTheGradientAndItsNeighboursStay) {
  for (const DType dtype : {DType::f64, DType::f32}) {  // of the weight; the buffer is wider or the same
    const Tensor arena = Tensor::full({3 * kWeight.numel()}, 5.0, DType::f64, {});
    const Tensor x = leaf(kImage, 1).detach().to(dtype), plain = leaf(kWeight, 2, dtype);
    Tensor w = leaf(kWeight, 2, dtype);
    w.set_grad_buffer(arena.slice(kWeight.numel(), kWeight));
    energy(convolve(x, plain)).backward();
    const std::vector<double> expected = gradient_of(plain);
    for (int pass = 1; pass <= 3; ++pass) {
      if (pass == 3) w.clear_grad();  // the next contribution overwrites
      energy(convolve(x, w)).backward();
      const std::vector<double> all = arena.to_doubles();
      const auto size = static_cast<std::size_t>(kWeight.numel());
      for (std::size_t i = 0; i < all.size(); ++i) {
        const bool inside = i >= size && i < 2 * size;
        EXPECT_EQ(all[i], inside ? (pass == 2 ? 2 : 1) * expected[i - size] : 5.0) << pass << " " << i;
      }
    }
  }
}

// Nothing of a convolution's weights' size beside the buffer: a gradient that was made elsewhere first would be seen.
TEST(GradientInPlace, ABufferSparesAPieceOfMemory) {
  const Shape wide{256, 3, 3, 256};
  const Tensor x = leaf({1, 1, 1, 256}, 1).detach();
  Tensor w = leaf(wide, 2);
  w.set_grad_buffer(Tensor::zeros(wide, DType::f64, {}));
  const Tensor loss = energy(convolve(x, w));
  w.backend().reset_peak();
  const std::size_t before = w.backend().memory_stats().active_bytes;
  loss.backward();
  EXPECT_LT(w.backend().memory_stats().peak_bytes, before + w.view().bytes() / 2);
}

}  // namespace
}  // namespace retort
