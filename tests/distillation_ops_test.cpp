// What the operator table cannot show of the distillation losses: messages, and gradients that are no derivatives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using ::testing::HasSubstr;

Tensor filled(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::full(shape, 0.5, dtype, Device{});
}

TEST(FeatureLosses, SayWhatIsWrong) {
  const Tensor x = filled({2, 3, 3, 4});
  Tensor trained = filled({2, 3, 3, 4});
  trained.set_requires_grad();
  EXPECT_THAT(test::error_of([&] {
                mean_squared_error(x, filled({2, 3, 3, 5}));
              }),
              HasSubstr("mean_squared_error: f32 [2, 3, 3, 4] on cpu and f32 [2, 3, 3, 5] on cpu do not match"));
  EXPECT_THAT(test::error_of([&] { smooth_l1(x, trained); }), HasSubstr("smooth_l1: the target counts as a constant"));
  EXPECT_THAT(test::error_of([&] { smooth_l1(x, x, 0.0); }), HasSubstr("smooth_l1: beta 0 is not above 0"));
  EXPECT_THAT(test::error_of([&] { channel_energy(x, 0.0); }), HasSubstr("channel_energy: p 0 is not above 0"));
  EXPECT_THAT(test::error_of([&] { channels_first(filled({3, 4})); }), HasSubstr("[N, H, W, C] or [N, R, C]"));
  EXPECT_THAT(test::error_of([&] {
                neuron_selectivity(filled({2, 3, 4}), filled({2, 3, 5}));
              }),
              HasSubstr("neuron_selectivity: student [2, 3, 4] and teacher [2, 3, 5]"));
  EXPECT_THAT(test::error_of([&] {
                neuron_selectivity(filled({2, 3, 4}, DType::bf16), filled({2, 3, 4}));
              }),
              HasSubstr("convert it with cast()"));
  EXPECT_THAT(test::error_of([&] { variational_information(x, x, filled({3})); }),
              HasSubstr("variational_information: the variances must be f32 [4]"));
}

TEST(RelationLosses, SayWhatIsWrong) {
  Tensor trained = filled({4, 4});
  trained.set_requires_grad();
  EXPECT_THAT(test::error_of([&] {
                angle_loss(filled({1, 1}), filled({1, 1}));
              }),
              HasSubstr("angle_loss: needs at least 2 samples in the batch, got 1"));
  EXPECT_THAT(test::error_of([&] { distance_loss(filled({4, 5}), filled({4, 5})); }), HasSubstr("square"));
  EXPECT_THAT(test::error_of([&] { distance_loss(filled({4, 4}), filled({5, 5})); }), HasSubstr("do not match"));
  EXPECT_THAT(test::error_of([&] {
                probability_transfer(filled({4, 4}), trained);
              }),
              HasSubstr("probability_transfer: the teacher counts as a constant"));
  EXPECT_THAT(test::error_of([&] {
                pairwise_squared_distances(filled({4, 4}, DType::bf16));
              }),
              HasSubstr("expected f32 or f64, got bf16"));
  EXPECT_THAT(test::error_of([&] {
                correlation_congruence(filled({1, 4}), filled({1, 4}));
              }),
              HasSubstr("correlation_congruence: needs at least 2 samples"));
}

TEST(FeatureLosses, ReverseGradientReverses) {
  Tensor x = filled({3});
  x.set_requires_grad();
  sum(reverse_gradient(x, 0.25)).backward();
  EXPECT_THAT(x.grad().to_doubles(), ::testing::Each(-0.25));
}

TEST(RelationLosses, CongruenceGivesTheSecondInputItsGradientAlone) {
  const Tensor a = Tensor::from(std::vector<float>{1, 2, 4, 8}, {2, 2});
  Tensor b = filled({2, 2});
  b.set_requires_grad();
  correlation_congruence(a, b).backward();
  EXPECT_THAT(b.grad().to_doubles(), ::testing::ElementsAre(-3.5, -7.5, -0.5, -1.5));
}

// Where all samples coincide there are no distances to divide by and no angles.
TEST(RelationLosses, CoincidingSamplesGiveFiniteLosses) {
  Tensor x = filled({4, 3});
  x.set_requires_grad();
  const Tensor s = pairwise_squared_distances(x), t = filled({4, 4});
  add(distance_loss(s, t, {.epsilon = 0.0}), angle_loss(s, t)).backward();
  EXPECT_THAT(x.grad().to_doubles(), ::testing::Each(0.0));
}

TEST(RelationLosses, LossesAreTheSameWithAndWithoutGradient) {
  std::vector<float> values(40 * 9);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 7919 + 13) % 101) / 50.0F;
  Tensor x = Tensor::from(values, {40, 9});
  const Tensor t = pairwise_squared_distances(scale(square(x), 0.5));
  const double without = angle_loss(pairwise_squared_distances(x), t).item();
  x.set_requires_grad();
  EXPECT_NEAR(angle_loss(pairwise_squared_distances(x), t).item(), without, 1e-6 * without);
}

}  // namespace
}  // namespace retort
