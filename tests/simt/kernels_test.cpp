// The CUDA kernels against the CPU backend, over odd shapes, aligned and not, in all lane orders: elementwise,
// reductions, shape, pooling, convolution.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/direct_convolution.h"
#include "tests/simt/device_calls.h"
#include "tests/support/reference.h"

namespace retort::simt {
namespace {

using kernels::Activation;
using kernels::Backend;
using Views = std::vector<View>;

constexpr DType kFloats[] = {DType::f64, DType::f32, DType::bf16};
constexpr DType kTypes[] = {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u8};
constexpr Activation kActivations[] = {Activation::identity, Activation::relu, Activation::relu6};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class SimtKernels : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtKernels, testing::ValuesIn(kFloats),
                         [](const auto& test) { return name_of(test.param); });

// --- elementwise ---------------------------------------------------------------------------------------------------

TEST_P(SimtKernels, Elementwise) {
  const DType t = GetParam();
  for (const std::int64_t n : {1, 7, 64, 1031, 9001}) {
    const Shape s{n};
    const std::vector<Argument> unary{input(t, s, 4), output(t, s)}, binary{input(t, s), input(t, s, 4), output(t, s)};
    expect_same_shifted_too(binary, [](Backend& b, const Views& v) { b.add(v[0], v[1], v[2], {}); });
    expect_same_shifted_too(unary, [](Backend& b, const Views& v) { b.scale(v[0], -0.3, v[1], {}); });
    expect_same_shifted_too(unary, [](Backend& b, const Views& v) { b.square(v[0], v[1], {}); });
    expect_same_shifted_too(binary, [](Backend& b, const Views& v) { b.square_backward(v[0], v[1], v[2], {}); });
    for (const Activation act : kActivations) {
      expect_same_shifted_too(unary, [&](Backend& b, const Views& v) { b.activation(v[0], act, v[1], {}); });
      expect_same_shifted_too(binary,
                              [&](Backend& b, const Views& v) { b.activation_backward(v[1], v[0], act, v[2], {}); });
    }
  }
}

TEST_P(SimtKernels, ElementwiseInPlace) {
  const DType t = GetParam();
  const Shape s{77};
  const std::vector<Argument> arguments{input(t, s), updated(t, s, 4)};
  expect_same(arguments, [](Backend& b, const Views& v) { b.add(v[0], v[1], v[1], {}); });
  expect_same(arguments, [](Backend& b, const Views& v) { b.scale(v[1], 3, v[1], {}); });
  expect_same(arguments, [](Backend& b, const Views& v) { b.activation(v[1], Activation::relu6, v[1], {}); });
  expect_same(arguments,
              [](Backend& b, const Views& v) { b.activation_backward(v[0], v[1], Activation::relu, v[1], {}); });
}

TEST(SimtConversions, Fill) {
  for (const DType t : kTypes) {
    for (const std::int64_t n : {1, 100, 1000}) {
      expect_same_shifted_too({output(t, {n})}, [](Backend& b, const Views& v) { b.fill(v[0], 17.3, {}); });
    }
  }
}

TEST(SimtConversions, ConvertAnyToAny) {
  for (const DType from : kTypes) {
    std::vector<double> values = normal_values(513, 40, 100);
    for (double& v : values) v = std::clamp(v, 0.0, 255.0);
    for (const DType to : kTypes) {
      expect_same_shifted_too({input(from, {513}, values), output(to, {513})},
                              [](Backend& b, const Views& v) { b.convert(v[0], v[1], {}); }, {0, 0, 0});
    }
  }
}

TEST(SimtConversions, AccumulateAcrossTypes) {
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      expect_same_shifted_too({input(from, {1025}), updated(to, {1025})},
                              [](Backend& b, const Views& v) { b.accumulate(v[0], v[1], {}); });
    }
  }
}

TEST(SimtConversions, ReciprocalSqrt) {
  for (const DType t : {DType::f64, DType::f32}) {
    std::vector<double> values = normal_values(67);
    for (double& v : values) v *= v;
    expect_same({input(t, {67}, values), output(t, {67})},
                [](Backend& b, const Views& v) { b.reciprocal_sqrt(v[0], 1e-3, v[1], {}); });
  }
}

TEST_P(SimtKernels, Dropout) {
  const DType t = GetParam();
  for (const Shape& s : {Shape{5, 3, 7, 2}, Shape{3, 1}, Shape{9, 130}}) {
    for (const double p : {0.0, 0.3, 1.0}) {
      expect_same_shifted_too(
          {input(t, s), indices({s[0]}, 1000), input(DType::i32, {1}, std::vector<double>{3}), output(t, s)},
          [&](Backend& b, const Views& v) {
            b.dropout(v[0], v[1], v[2], p, {42, 1025}, v[3], {});
          });
    }
  }
}

// --- reductions ----------------------------------------------------------------------------------------------------

TEST_P(SimtKernels, SumAndBroadcast) {
  const DType t = GetParam(), a = accumulation_type(t);
  for (const std::int64_t n : {1, 33, 5000, 70001}) {  // the last in several blocks
    expect_same_shifted_too({input(t, {n}), output(a, {1})},
                            [](Backend& b, const Views& v) { b.sum(v[0], 0.25, v[1], {}); });
  }
  expect_same_shifted_too({input(a, {1}), output(t, {1003})},
                          [](Backend& b, const Views& v) { b.broadcast(v[0], -2, v[1], {}); });
}

TEST(SimtReductions, Norm) {
  for (const DType t : {DType::f64, DType::f32}) {
    for (const std::int64_t n : {1, 513, 40001}) {
      expect_same_shifted_too({input(t, {n}), output(DType::f64, {1})},
                              [](Backend& b, const Views& v) { b.norm(v[0], v[1], {}); });
    }
  }
}

TEST_P(SimtKernels, Nonfinite) {
  const DType t = GetParam();
  for (const std::int64_t n : {5, 70001}) {
    std::vector<double> values = normal_values(n);
    values[0] = kNan;
    values[3] = -kInfinity;
    values.back() = kInfinity;
    expect_same_shifted_too({input(t, {n}, values), updated(DType::i32, {1}, 0, 5)},
                            [](Backend& b, const Views& v) { b.accumulate_nonfinite(v[0], v[1], {}); });
  }
}

TEST_P(SimtKernels, SumRows) {
  const DType t = GetParam();
  for (const Shape& s :
       {Shape{1, 1}, Shape{37, 5}, Shape{300, 8}, Shape{9, 13, 11, 64}, Shape{33, 131}, Shape{5, 300}}) {
    expect_same_shifted_too({input(t, s), output(accumulation_type(t), {s.last()})},
                            [](Backend& b, const Views& v) { b.sum_rows(v[0], v[1], {}); });
  }
}

// --- shape ---------------------------------------------------------------------------------------------------------

TEST(SimtShape, CopyRows) {
  struct Copy {
    std::int64_t x_pitch, out_pitch, rows, columns;
  };
  for (const DType t : kTypes) {
    for (const Copy& c : {Copy{32, 48, 7, 16}, Copy{10, 20, 5, 6}, Copy{7, 5, 9, 3}, Copy{1, 3, 33, 1}}) {
      // What lies between the rows must keep its value.
      expect_same_shifted_too(
          {input(t, {c.rows * c.x_pitch}, 1, 50), updated(t, {c.rows * c.out_pitch}, 1, 90)},
          [&](Backend& b, const Views& v) { b.copy_rows(v[0], c.x_pitch, v[1], c.out_pitch, c.rows, c.columns, {}); });
    }
  }
}

TEST(SimtShape, Gather) {
  expect_same({indices({100}, 1 << 20), indices({300}, 100), output(DType::i32, {300})},
              [](Backend& b, const Views& v) { b.gather(v[0], v[1], v[2], {}); });
}

// --- pooling -------------------------------------------------------------------------------------------------------

TEST_P(SimtKernels, WindowPools) {
  const DType t = GetParam();
  const kernels::PoolParams windows[] = {{2, 2, 2, 2, 0, 0},
                                         {3, 3, 2, 2, 1, 1},
                                         {3, 2, 1, 3, 1, 0},
                                         {3, 2, 2, 3, 0, 1, 2, 0},
                                         {3, 3, 2, 2, 1, 0, -1, -1, 1, 1, true},
                                         {2, 3, 3, 2, 1, 2, 0, 1, 1, 1, true, false},
                                         {2, 2, 1, 2, 1, 0, -1, 1, 3, 2}};
  for (const Shape& s : {Shape{2, 7, 9, 5}, Shape{1, 6, 4, 16}}) {
    for (const kernels::PoolParams& p : windows) {
      const Shape out = reference::max_pool(reference::Array(s), p).y.shape;
      std::vector<double> values = normal_values(s.numel());
      for (double& v : values) v = std::round(2 * v);  // with ties
      values[17] = kNan;
      expect_same_shifted_too({input(t, s, values), output(t, out), output(DType::i32, out)},
                              [&](Backend& b, const Views& v) { b.max_pool(v[0], p, v[1], v[2], {}); });
      expect_same_shifted_too({input(t, s), input(t, out), output(t, out), output(DType::i32, out), output(t, s)},
                              [&](Backend& b, const Views& v) {
                                b.max_pool(v[0], p, v[2], v[3], {});
                                b.max_pool_backward(v[1], v[3], p, v[4], {});
                              });
      if (p.dilation_h > 1) continue;
      expect_same_shifted_too({input(t, s), output(t, out)},
                              [&](Backend& b, const Views& v) { b.average_pool(v[0], p, v[1], {}); });
      expect_same_shifted_too({input(t, out), output(t, s)},
                              [&](Backend& b, const Views& v) { b.average_pool_backward(v[0], p, v[1], {}); });
    }
  }
}

TEST_P(SimtKernels, AdaptivePools) {
  const DType t = GetParam();
  for (const Shape& s : {Shape{2, 7, 5, 5}, Shape{3, 4, 4, 24}}) {
    for (const auto& [h, w] : {std::pair{1, 1}, {3, 2}, {4, 4}, {6, 9}}) {
      const Shape out{s[0], h, w, s[3]};
      expect_same_shifted_too({input(t, s), output(t, out)},
                              [](Backend& b, const Views& v) { b.adaptive_average_pool(v[0], v[1], {}); });
      expect_same_shifted_too({input(t, out), output(t, s)},
                              [](Backend& b, const Views& v) { b.adaptive_average_pool_backward(v[0], v[1], {}); });
    }
  }
}

// --- convolution: the kernels that stand in where cuDNN has none
// ------------------------------------------------------

TEST_P(SimtKernels, DirectConvolution) {
  const DType t = GetParam();
  const Expectation rounding{1e-13, 5e-6, 8e-3};
  const auto on_simt = [](const Backend& b) { return b.device().is_cuda(); };
  for (const int groups : {1, 2}) {
    kernels::ConvParams p;
    p.stride_h = 2;
    p.pad_h = p.pad_w = 1;
    p.groups = groups;
    p.math = kernels::Math::strict;
    const Shape x{2, 7, 5, 4}, w{6, 3, 3, 4 / groups}, y{2, 4, 5, 6};
    expect_same(
        {input(t, x), input(t, w), input(accumulation_type(t), {6}), input(t, y), output(t, y)},
        [&](Backend& b, const Views& v) {
          const kernels::ConvEpilogue epilogue{v[2], v[3], Activation::relu6};
          on_simt(b) ? kernels::direct_conv2d(v[0], v[1], epilogue, p, v[4], {})
                     : b.conv2d(v[0], v[1], epilogue, p, v[4], {});
        },
        rounding);
    expect_same(
        {input(t, y), input(t, w), output(t, x)},
        [&](Backend& b, const Views& v) {
          on_simt(b) ? kernels::direct_conv2d_backward_data(v[0], v[1], p, v[2], {})
                     : b.conv2d_backward_data(v[0], v[1], p, v[2], {});
        },
        rounding);
    expect_same(
        {input(t, x), input(t, y), output(t, w)},
        [&](Backend& b, const Views& v) {
          on_simt(b) ? kernels::direct_conv2d_backward_weights(v[0], v[1], p, v[2], {})
                     : b.conv2d_backward_weights(v[0], v[1], p, v[2], {});
        },
        rounding);
  }
}

}  // namespace
}  // namespace retort::simt
