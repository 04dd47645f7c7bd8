// Indices beyond 2^31 and 2^32: arrays that are only mapped, of which the kernels run a few blocks, those beside the
// powers of two among them. An index that overflows ends the process or leaves its element unwritten.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/augment.h"
#include "kernels/cuda/direct_convolution.h"
#include "tests/simt/device_calls.h"
#include "tests/simt/heap.h"
#include "tests/simt/simt.h"

namespace retort::simt {
namespace {

using kernels::Activation;
using kernels::Backend;
using Views = std::vector<View>;
using Work = std::function<void(Backend&, const Views&)>;

constexpr std::int64_t k31 = std::int64_t{1} << 31, k32 = std::int64_t{1} << 32;

// An array on the mapped device memory: 0, but for the marks, which hold 2.
class Large {
 public:
  Large(DType type, const Shape& shape)
      : memory_(static_cast<std::size_t>(shape.numel()) * size_of(type)), view_{memory_.data(), type, shape} {
    for (const std::int64_t mark : marks()) set(mark, 2);
  }
  const View& view() const { return view_; }
  std::vector<std::int64_t> marks() const {
    std::vector<std::int64_t> all;
    const std::int64_t count = view_.numel();
    for (const std::int64_t mark : {std::int64_t{0}, k31 - 1, k31, k32 - 1, k32, count - 1}) {
      if (mark < count) all.push_back(mark);
    }
    return all;
  }
  void set(std::int64_t i, double value) {
    if (view_.dtype == DType::f32) view_.as<float>()[i] = static_cast<float>(value);
    if (view_.dtype == DType::bf16) view_.as<bf16>()[i] = bf16(static_cast<float>(value));
    if (view_.dtype == DType::i32) view_.as<std::int32_t>()[i] = static_cast<std::int32_t>(value);
    if (view_.dtype == DType::u8) view_.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(value);
  }
  double get(std::int64_t i) const {
    if (view_.dtype == DType::f32) return view_.as<float>()[i];
    if (view_.dtype == DType::bf16) return view_.as<bf16>()[i];
    if (view_.dtype == DType::i32) return view_.as<std::int32_t>()[i];
    return view_.as<std::uint8_t>()[i];
  }

 private:
  MappedMemory memory_;
  View view_;
};

struct Typed {
  DType type;
  Shape shape;
};

// Runs `work` on large arrays. The elements of the last one at its marks must have become `expected`, or without it
// anything but what they were.
void expect_reached(const std::vector<Typed>& arrays, const Work& work, std::optional<double> expected = {}) {
  std::vector<std::unique_ptr<Large>> all;
  Views views;
  for (const Typed& a : arrays) {
    all.push_back(std::make_unique<Large>(a.type, a.shape));
    views.push_back(all.back()->view());
  }
  constexpr double kBefore = 77;
  Large& out = *all.back();
  for (const std::int64_t mark : out.marks()) out.set(mark, kBefore);
  {
    const SparseLaunches sparse;
    work(simt_device(), views);
  }
  for (const std::int64_t mark : out.marks()) {
    if (expected) {
      EXPECT_EQ(out.get(mark), *expected) << "element " << mark;
    } else {
      EXPECT_NE(out.get(mark), kBefore) << "element " << mark;
    }
  }
}

constexpr DType f32 = DType::f32, bf = DType::bf16, i32 = DType::i32, u8 = DType::u8;

TEST(LargeIndices, Elementwise) {
  const Shape s{k32 + 1031};
  for (const DType t : {f32, bf}) {
    expect_reached(
        {{t, s}, {t, s}, {t, s}}, [](Backend& b, const Views& v) { b.add(v[0], v[1], v[2], {}); }, 4);
    expect_reached(
        {{t, s}, {t, s}}, [](Backend& b, const Views& v) { b.scale(v[0], 3, v[1], {}); }, 6);
    expect_reached(
        {{t, s}}, [](Backend& b, const Views& v) { b.fill(v[0], 3, {}); }, 3);
  }
  for (const auto& [from, to] : {std::pair{f32, bf}, {bf, f32}, {i32, f32}, {f32, i32}, {u8, i32}}) {
    expect_reached(
        {{from, s}, {to, s}}, [](Backend& b, const Views& v) { b.convert(v[0], v[1], {}); }, 2);
  }
  expect_reached(
      {{f32, s}, {bf, s}}, [](Backend& b, const Views& v) { b.accumulate(v[0], v[1], {}); }, 79);
  expect_reached(
      {{f32, {1}}, {f32, s}}, [](Backend& b, const Views& v) { b.broadcast(v[0], 3, v[1], {}); }, 6);
  const Shape odd{(k32 >> 16) + 3, 65536};
  expect_reached(
      {{f32, odd}, {i32, {odd[0]}}, {i32, {1}}, {f32, odd}},
      [](Backend& b, const Views& v) {
        b.dropout(v[0], v[1], v[2], 0, {1, 2}, v[3], {});
      },
      2);
}

TEST(LargeIndices, ShapeAndFrozen) {
  const std::int64_t rows = (k32 >> 16) + 3, columns = 65536;
  const Shape s{rows, columns};
  expect_reached(
      {{f32, s}, {f32, s}},
      [=](Backend& b, const Views& v) { b.copy_rows(v[0], columns, v[1], columns, rows, columns, {}); }, 2);
  expect_reached(
      {{i32, {3}}, {i32, s}, {i32, s}}, [](Backend& b, const Views& v) { b.gather(v[0], v[1], v[2], {}); }, 2);
  const kernels::Walk channel{2, {rows, columns}, {columns, 1}, {0, 1}};
  expect_reached({{f32, s}, {f32, {columns}}, {f32, s}}, [&](Backend& b, const Views& v) {
    b.binary(v[0], v[1], kernels::Binary::subtract, channel, v[2], {});
  });
  const kernels::Walk transposed{2, {rows, columns}, {1, rows}, {columns, 1}};
  expect_reached({{f32, s}, {f32, s}},
                 [&](Backend& b, const Views& v) { b.strided_copy(v[0], 0, v[1], 0, transposed, {}); });
  const Shape tiles{(k32 >> 14) + 3, 128, 128};  // the marks lie on diagonals
  expect_reached(
      {{f32, tiles}, {f32, tiles}}, [](Backend& b, const Views& v) { b.transpose_inner(v[0], v[1], {}); }, 2);
}

// Packs of channels, and single ones, of which there are more than 2^32.
class LargePools : public testing::TestWithParam<std::pair<Shape, Shape>> {};
INSTANTIATE_TEST_SUITE_P(LargeIndices, LargePools,
                         testing::Values(std::pair{Shape{(k32 >> 4) + 5, 4, 4, 4}, Shape{(k32 >> 4) + 5, 2, 2, 4}},
                                         std::pair{Shape{k32 + 5, 2, 2, 1}, Shape{k32 + 5, 1, 1, 1}}));

TEST_P(LargePools, Reach) {
  const auto [in, out] = GetParam();
  const kernels::PoolParams halves{2, 2, 2, 2, 0, 0};
  expect_reached({{f32, in}, {i32, out}, {f32, out}},
                 [&](Backend& b, const Views& v) { b.max_pool(v[0], halves, v[2], v[1], {}); });
  expect_reached({{f32, out}, {i32, out}, {f32, in}},
                 [&](Backend& b, const Views& v) { b.max_pool_backward(v[0], v[1], halves, v[2], {}); });
  expect_reached({{f32, in}, {f32, out}}, [&](Backend& b, const Views& v) { b.average_pool(v[0], halves, v[1], {}); });
  expect_reached({{f32, out}, {f32, in}},
                 [&](Backend& b, const Views& v) { b.average_pool_backward(v[0], halves, v[1], {}); });
  expect_reached({{f32, in}, {f32, out}}, [](Backend& b, const Views& v) { b.adaptive_average_pool(v[0], v[1], {}); });
}

// Rows that pass 2^32 themselves as well.
class LargeColumns : public testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(LargeIndices, LargeColumns, testing::Values(Shape{(k32 >> 3) + 5, 8}, Shape{k32 + 5, 1}));

TEST_P(LargeColumns, Reach) {
  const Shape s = GetParam(), c{s[1]};
  const kernels::Activation relu = Activation::relu;
  expect_reached({{f32, s}, {f32, s}, {f32, c}, {f32, c}, {f32, c}, {f32, c}, {f32, s}},
                 [&](Backend& b, const Views& v) {
                   b.batch_norm_inference(v[0], v[1], v[2], v[3], v[4], v[5], 1e-3, relu, v[6], {});
                 });
  expect_reached({{f32, s}, {f32, c}, {f32, c}, {f32, c}, {f32, c}, {f32, c}, {f32, c}, {i32, {1}}, {f32, s}},
                 [&](Backend& b, const Views& v) {
                   b.batch_norm_training(v[0], {}, v[1], v[2], 0.1, 1e-3, Activation::identity, v[8], v[3], v[4], v[5],
                                         v[6], v[7], {});
                 });
  for (const bool masked : {true, false}) {
    expect_reached({{f32, s}, {f32, s}, {f32, s}, {f32, c}, {f32, c}, {f32, c}, {f32, s}, {f32, c}, {f32, c}, {f32, s}},
                   [&](Backend& b, const Views& v) {
                     b.batch_norm_backward(v[0], v[1], v[2], v[3], {}, v[4], v[5], relu, true, v[masked ? 6 : 9],
                                           v[masked ? 9 : 6], v[7], v[8], {});
                   });
  }
  expect_reached({{f32, s}, {f32, c}}, [](Backend& b, const Views& v) { b.sum_rows(v[0], v[1], {}); });
  expect_reached({{f32, s}, {f32, s}, {f32, c}, {f32, {1}}, {f32, c}, {f32, s}}, [](Backend& b, const Views& v) {
    b.variational_information(v[0], v[1], v[2], 1e-5, v[3], v[5], v[4], {});
  });
}

TEST(LargeIndices, Rows) {
  const Shape s{(k32 >> 12) + 5, 4096}, r{s[0]}, one{1};
  expect_reached({{f32, s}, {f32, s}}, [](Backend& b, const Views& v) { b.softmax(v[0], v[1], {}); });
  expect_reached({{f32, s}, {f32, s}}, [](Backend& b, const Views& v) { b.log_softmax(v[0], v[1], {}); });
  expect_reached({{f32, s}, {f32, s}, {f32, s}},
                 [](Backend& b, const Views& v) { b.log_softmax_backward(v[0], v[1], v[2], {}); });
  expect_reached({{f32, s}, {f32, r}, {f32, s}},
                 [](Backend& b, const Views& v) { b.l2_normalize(v[0], 1e-6, v[2], v[1], {}); });
  expect_reached({{f32, s}, {f32, r}, {f32, s}, {f32, s}},
                 [](Backend& b, const Views& v) { b.l2_normalize_backward(v[0], v[1], v[2], 1, v[3], {}); });
  expect_reached({{f32, s}, {i32, r}, {f32, one}, {f32, r}, {f32, s}}, [](Backend& b, const Views& v) {
    b.cross_entropy(v[0], v[1], 0.1, v[2], v[3], {});
    b.cross_entropy_backward(v[0], v[1], v[3], v[2], 0.1, v[4], {});
  });
  expect_reached(
      {{f32, s}, {i32, r}, {DType::f64, {4}}, {f32, one}},
      [](Backend& b, const Views& v) {
        b.accumulate_metrics(v[0], v[1], v[2], {});
        b.fill(v[3], 1, {});
      },
      1);
  expect_reached({{f32, s}, {f32, s}, {f32, one}, {f32, s}},
                 [](Backend& b, const Views& v) { b.soft_target_loss(v[0], v[1], 4, true, v[2], v[3], {}); });
  expect_reached({{f32, s}, {f32, s}, {i32, r}, {f32, one}, {f32, s}},
                 [](Backend& b, const Views& v) { b.decoupled_loss(v[0], v[1], v[2], 1, 8, 4, v[3], v[4], {}); });
  expect_reached({{f32, s}, {f32, r}, {f32, s}},
                 [](Backend& b, const Views& v) { b.standardize_rows(v[0], 1e-6, v[2], v[1], {}); });
  expect_reached({{f32, s}, {f32, s}, {f32, one}, {f32, s}},
                 [](Backend& b, const Views& v) { b.pearson_loss(v[0], v[1], false, 1e-8, v[2], v[3], {}); });
  expect_reached({{f32, {3, s[0], 4096}}, {f32, s}},
                 [](Backend& b, const Views& v) { b.mean_softmax_logits(v[0], 2, v[1], {}); });
}

TEST(LargeIndices, Losses) {
  // The sum's threads take four packs each: with this count those of the marks are among the threads that run.
  const Shape s{k32}, m{(k32 >> 3) + 5, 8}, r{m[0]}, one{1};
  expect_reached({{bf, s}, {bf, s}, {f32, one}, {bf, s}}, [](Backend& b, const Views& v) {
    b.pointwise_loss(kernels::PointwiseLoss::squared, 1, v[0], v[1], v[2], v[3], {});
  });
  expect_reached({{f32, m}, {f32, r}}, [](Backend& b, const Views& v) { b.channel_energy(v[0], 2, v[1], {}); });
  expect_reached({{f32, r}, {f32, m}, {f32, m}},
                 [](Backend& b, const Views& v) { b.channel_energy_backward(v[1], 2, v[0], v[2], {}); });
  const Shape rows{4097, 1 << 20};
  expect_reached({{f32, rows}, {f32, rows}, {f32, one}, {f32, rows}},
                 [](Backend& b, const Views& v) { b.correlation_congruence(v[0], v[1], v[2], v[3], {}); });
}

TEST(LargeIndices, Optimizer) {
  const Shape n{k31 + 256}, chunks{n[0] / 256};
  expect_reached(
      {{f32, n}, {f32, chunks}, {f32, chunks}, {DType::f64, {1}}, {i32, {1}}, {f32, n}},
      [](Backend& b, const Views& v) {
        v[3].as<double>()[0] = 1;
        kernels::OptimizerArgs args;
        args.parameter = v[5];
        args.gradient = v[0];
        args.decay_scale = v[1];
        args.lr_scale = v[2];
        for (const std::int64_t mark : {std::int64_t{0}, k31 - 1, k31, k31 + 255}) {
          v[2].as<float>()[mark / 256] = 2;
        }
        args.lr = v[3];
        args.step = v[4];
        b.optimizer_step(args, {});
      },
      77 - 2 * 2);
}

TEST(LargeIndices, DirectConvolution) {
  const Shape map{(k32 >> 6) + 1, 4, 4, 4}, w{4, 1, 1, 4};
  expect_reached({{f32, map}, {f32, w}, {f32, map}},
                 [](Backend&, const Views& v) { kernels::direct_conv2d(v[0], v[1], {}, {}, v[2], {}); });
  expect_reached({{f32, map}, {f32, w}, {f32, map}},
                 [](Backend&, const Views& v) { kernels::direct_conv2d_backward_data(v[0], v[1], {}, v[2], {}); });
  expect_reached({{f32, {4}}, {f32, map}, {f32, map}}, [](Backend&, const Views& v) {
    kernels::bias_residual_activation({v[0], v[1], Activation::identity}, v[2], {});
  });
}

TEST(LargeIndices, Augmentation) {
  const std::int64_t samples = (std::int64_t{1} << 20) + 3;  // of 3,072 values
  expect_reached({{u8, {samples, 32, 32, 3}}, {i32, {samples}}, {i32, {1}}, {f32, {samples, 32, 32, 3}}},
                 [&](Backend& b, const Views& v) {
                   v[1].as<std::int32_t>()[samples - 1] = static_cast<std::int32_t>(samples - 1);
                   kernels::AugmentParams params;
                   params.mean[0] = params.mean[1] = params.mean[2] = 0;
                   params.std[0] = params.std[1] = params.std[2] = 1.0 / 255;
                   b.augment(params, v[0], v[1], v[2], v[3], {});
                   const float* out = v[3].as<float>();
                   EXPECT_NEAR(out[samples * 3072 - 1], 2, 1e-5);  // the mark of the last image
                   out += (std::int64_t{1} << 20) * 3072;
                   EXPECT_NEAR(out[0], 2, 1e-5);                                               // the mark of the first
                   for (const std::int64_t mark : {k31 - 1, k31}) v[3].as<float>()[mark] = 0;  // in no block that runs
                 });
}

// More samples than the last axis of a grid has: groups of them, the last of few.
TEST(LargeIndices, NeuronSelectivityBeyondTheGridsLastAxis) {
  constexpr std::int64_t kSamples = 65535 + 65;
  Large s(f32, {kSamples, 1, 1}), t(f32, {kSamples, 1, 1});
  const Large loss(f32, {1}), gradient(f32, {kSamples, 1, 1});
  s.set(65535, 2);  // the first sample of the second launch
  t.set(65535, 3);
  const SparseLaunches sparse;
  simt_device().neuron_selectivity(s.view(), t.view(), loss.view(), gradient.view(), {});
  // 4 w_s (w_s s² s + w_t s t t) / samples
  const float expected = static_cast<float>(4.0 / kSamples) * static_cast<float>(2.0 * 2 * 2 - 2.0 * 3 * 3);
  EXPECT_NEAR(gradient.get(65535), expected, 1e-9);
  EXPECT_NEAR(gradient.get(0), 0, 1e-9);
}

}  // namespace
}  // namespace retort::simt
