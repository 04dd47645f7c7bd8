// The CUDA kernels against the CPU backend, in all lane orders: the distillation losses.
#include "tests/simt/device_calls.h"

namespace retort::simt {
namespace {

using kernels::Backend;
using kernels::DistanceLossParams;
using kernels::PointwiseLoss;
using Views = std::vector<View>;

// Squared distances between `batch` samples; the first two are one and the same.
Argument distances(DType type, std::int64_t batch, std::int64_t features) {
  std::vector<double> x = input(type, {batch, features}).values, y;
  std::copy_n(x.begin(), features, x.begin() + features);
  for (std::int64_t i = 0; i < batch; ++i) {
    for (std::int64_t j = 0; j < batch; ++j) {
      double sum = 0;
      for (std::int64_t d = 0; d < features; ++d) {
        const double difference =
            x[static_cast<std::size_t>(i * features + d)] - x[static_cast<std::size_t>(j * features + d)];
        sum += difference * difference;
      }
      y.push_back(sum);
    }
  }
  return input(type, {batch, batch}, y);
}

const auto kTypeName = [](const auto& test) { return name_of(test.param); };

class SimtFeatureLosses : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtFeatureLosses, testing::Values(DType::f64, DType::f32, DType::bf16), kTypeName);

TEST_P(SimtFeatureLosses, PointwiseLoss) {
  const DType t = GetParam();
  for (const PointwiseLoss kind :
       {PointwiseLoss::squared, PointwiseLoss::smooth_l1, PointwiseLoss::binary_cross_entropy}) {
    for (const Shape& s : {Shape{1}, Shape{3, 5, 7}, Shape{40, 513}}) {
      expect_same_shifted_too({input(t, s, 2), input(t, s), output(accumulation_type(t), {1}), output(t, s),
                               output(accumulation_type(t), {1})},
                              [&](Backend& b, const Views& v) {
                                b.pointwise_loss(kind, 0.7, v[0], v[1], v[2], v[3], {});
                                b.pointwise_loss(kind, 0.7, v[0], v[1], v[4], {}, {});
                              });
    }
  }
}

TEST_P(SimtFeatureLosses, ChannelEnergy) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const double p : {2.0, 1.0, 3.0}) {
    for (const Shape& s : {Shape{1, 1}, Shape{35, 3}, Shape{67, 16}, Shape{300, 8}, Shape{5, 700}}) {
      expect_same_shifted_too({input(t, s), input(a, {s[0]}), output(a, {s[0]}), output(t, s)},
                              [&](Backend& b, const Views& v) {
                                b.channel_energy(v[0], p, v[2], {});
                                b.channel_energy_backward(v[0], p, v[1], v[3], {});
                              });
    }
  }
}

TEST_P(SimtFeatureLosses, TransposeInner) {
  for (const Shape& s : {Shape{1, 1, 5}, Shape{3, 33, 31}, Shape{2, 64, 96}}) {
    expect_same_shifted_too({input(GetParam(), s), output(GetParam(), {s[0], s[2], s[1]})},
                            [](Backend& b, const Views& v) { b.transpose_inner(v[0], v[1], {}); });
  }
}

TEST_P(SimtFeatureLosses, VariationalInformation) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const Shape& s : {Shape{1, 3}, Shape{2, 5, 3, 7}, Shape{2, 17, 11, 40}, Shape{9, 270}}) {
    const Shape c{s.last()};
    expect_same_shifted_too(
        {input(t, s), input(t, s), input(a, c), output(a, {1}), output(t, s), output(a, c)},
        [](Backend& b, const Views& v) { b.variational_information(v[0], v[1], v[2], 1e-5, v[3], v[4], v[5], {}); });
  }
}

class SimtRelationLosses : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtRelationLosses, testing::Values(DType::f64, DType::f32), kTypeName);

TEST_P(SimtRelationLosses, NeuronSelectivity) {
  const DType t = GetParam();
  for (const auto& [s, teacher] : {std::pair{Shape{1, 1, 1}, Shape{1, 2, 1}},
                                   {Shape{2, 7, 5}, Shape{2, 3, 5}},
                                   {Shape{2, 65, 70}, Shape{2, 130, 70}}}) {
    expect_same({input(t, s, 0.3), input(t, teacher, 0.3), output(t, {1}), output(t, s), output(t, {1})},
                [](Backend& b, const Views& v) {
                  b.neuron_selectivity(v[0], v[1], v[2], v[3], {});
                  b.neuron_selectivity(v[0], v[1], v[4], {}, {});
                });
  }
}

TEST_P(SimtRelationLosses, PairwiseSquaredDistances) {
  const DType t = GetParam();
  for (const Shape& s : {Shape{1, 1}, Shape{5, 7}, Shape{33, 65}}) {
    const Shape pairs{s[0], s[0]};
    expect_same({input(t, s), input(t, pairs), output(t, pairs), output(t, s)}, [](Backend& b, const Views& v) {
      b.pairwise_squared_distances(v[0], v[2], {});
      b.pairwise_squared_distances_backward(v[0], v[1], v[3], {});
    });
  }
}

TEST_P(SimtRelationLosses, DistanceAndAngle) {
  const DType t = GetParam();
  for (const std::int64_t batch : {2, 5, 40, 260}) {  // within a warp, a block, and beyond a block
    if (batch > 100 && t == DType::f64) continue;     // slow
    const Shape pairs{batch, batch};
    const std::vector<Argument> arguments{distances(t, batch, 6), distances(t, batch, 9), output(t, {1}),
                                          output(t, pairs), output(t, {1})};
    for (const bool normalize : {true, false}) {
      for (const bool squared : {true, false}) {
        const DistanceLossParams params{normalize, squared, 1e-12};
        expect_same(arguments, [&](Backend& b, const Views& v) {
          b.distance_loss(v[0], v[1], params, v[2], v[3], {});
          b.distance_loss(v[0], v[1], params, v[4], {}, {});
        });
      }
    }
    if (batch > 100) continue;
    expect_same(arguments, [](Backend& b, const Views& v) {
      b.angle_loss(v[0], v[1], 1e-12, v[2], v[3], {});
      b.angle_loss(v[0], v[1], 1e-12, v[4], {}, {});
    });
  }
}

TEST_P(SimtRelationLosses, TransferAndCongruence) {
  const DType t = GetParam();
  for (const std::int64_t batch : {2, 5, 40}) {
    const Shape pairs{batch, batch};
    // Cosines are within (-1, 1), which a small deviation keeps them in.
    expect_same({input(t, pairs, 0.15), input(t, pairs, 0.15), output(t, {1}), output(t, pairs)},
                [](Backend& b, const Views& v) { b.probability_transfer(v[0], v[1], 1e-7, v[2], v[3], {}); });
    const Shape samples{batch, 7 * batch};
    expect_same({input(t, samples), input(t, samples), output(t, {1}), output(t, samples)},
                [](Backend& b, const Views& v) { b.correlation_congruence(v[0], v[1], v[2], v[3], {}); });
  }
}

}  // namespace
}  // namespace retort::simt
