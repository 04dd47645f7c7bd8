// The convolutions that stand in for cuDNN, in all lane orders, against the definition in f64.
#include "kernels/cuda/direct_convolution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/simt/backend.h"
#include "tests/simt/heap.h"
#include "tests/support/reference_conv.h"

namespace retort::simt {
namespace {

using reference::Conv;
using reference::Values;

// Device memory of one type, from values in f64.
class Array {
 public:
  Array(const Shape& shape, DType dtype) : view_{nullptr, dtype, shape} { view_.data = heap().allocate(view_.bytes()); }
  Array(const Shape& shape, DType dtype, const Values& values) : Array(shape, dtype) {
    for (std::size_t i = 0; i < values.size(); ++i) set(i, values[i]);
  }
  ~Array() { heap().deallocate(view_.data, view_.bytes()); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  const View& view() const { return view_; }
  double get(std::size_t i) const {
    if (view_.dtype == DType::f64) return view_.as<double>()[i];
    if (view_.dtype == DType::f32) return view_.as<float>()[i];
    return view_.as<bf16>()[i];
  }

 private:
  void set(std::size_t i, double value) {
    if (view_.dtype == DType::f64) view_.as<double>()[i] = value;
    if (view_.dtype == DType::f32) view_.as<float>()[i] = static_cast<float>(value);
    if (view_.dtype == DType::bf16) view_.as<bf16>()[i] = bf16(static_cast<float>(value));
  }

  View view_;
};

// Multiples of 1/8 in [-1, 1]: exact in every type, and so are short sums of their products.
Values eighths(std::int64_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int> eighth(-8, 8);
  Values values(static_cast<std::size_t>(count));
  for (double& value : values) value = eighth(generator) / 8.0;
  return values;
}

struct Case {
  const char* name;
  Conv conv;
};

class DirectConvolution : public testing::TestWithParam<std::tuple<Case, DType>> {
 protected:
  template <typename F>
  static void in_all_orders(const F& work) {
    for (const LaneOrder order : kLaneOrders) {
      SCOPED_TRACE(name_of(order));
      set_lane_order(order, 5);
      work();
    }
    set_lane_order(LaneOrder::forward);
  }

  const Conv& conv() const { return std::get<0>(GetParam()).conv; }
  DType dtype() const { return std::get<1>(GetParam()); }
  DType wide() const { return accumulation_type(dtype()); }
  Shape x_shape() const { return {conv().n, conv().h, conv().w, conv().c}; }
  Shape w_shape() const { return {conv().o, conv().kh, conv().kw, conv().c / conv().groups}; }
  Shape y_shape() const { return {conv().n, conv().oh(), conv().ow(), conv().o}; }
  kernels::ConvParams params() const {
    kernels::ConvParams p;
    p.stride_h = p.stride_w = static_cast<int>(conv().stride);
    p.pad_h = p.pad_w = static_cast<int>(conv().pad);
    p.dilation_h = static_cast<int>(conv().dilation_h);
    p.dilation_w = static_cast<int>(conv().dilation_w);
    p.groups = static_cast<int>(conv().groups);
    return p;
  }

  // The sums are exact in f32 and f64; a bf16 result is the exact sum, rounded once.
  void expect_equal(const Array& actual, const Values& expected) const {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double rounded = dtype() == DType::bf16 ? bf16(static_cast<float>(expected[i])) : expected[i];
      ASSERT_EQ(actual.get(i), rounded) << "element " << i;
    }
  }
};

TEST_P(DirectConvolution, Forward) {
  const Values x = eighths(conv().x_size(), 1), w = eighths(conv().w_size(), 2), bias = eighths(conv().o, 3);
  const Array device_x(x_shape(), dtype(), x), device_w(w_shape(), dtype(), w), device_bias({conv().o}, wide(), bias);
  in_all_orders([&] {
    const Array plain(y_shape(), dtype()), biased(y_shape(), dtype());
    kernels::direct_conv2d(device_x.view(), device_w.view(), {}, params(), plain.view(), {});
    expect_equal(plain, reference::conv_forward(conv(), x, w, {}));
    kernels::direct_conv2d(device_x.view(), device_w.view(), {device_bias.view()}, params(), biased.view(), {});
    expect_equal(biased, reference::conv_forward(conv(), x, w, bias));
  });
}

TEST_P(DirectConvolution, BackwardData) {
  const Values dy = eighths(conv().y_size(), 1), w = eighths(conv().w_size(), 2);
  const Array device_dy(y_shape(), dtype(), dy), device_w(w_shape(), dtype(), w);
  in_all_orders([&] {
    const Array dx(x_shape(), dtype());
    kernels::direct_conv2d_backward_data(device_dy.view(), device_w.view(), params(), dx.view(), {});
    expect_equal(dx, reference::conv_backward_data(conv(), dy, w));
  });
  const Values old = eighths(conv().x_size(), 3);
  Values sum = reference::conv_backward_data(conv(), dy, w);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += old[i];
  const Array total(x_shape(), dtype(), old);
  kernels::direct_conv2d_backward_data(device_dy.view(), device_w.view(), params(), total.view(), {}, true);
  expect_equal(total, sum);
}

TEST_P(DirectConvolution, BackwardWeights) {
  const Values x = eighths(conv().x_size(), 1), dy = eighths(conv().y_size(), 2);
  const Array device_x(x_shape(), dtype(), x), device_dy(y_shape(), dtype(), dy);
  in_all_orders([&] {
    const Array dw(w_shape(), dtype());
    kernels::direct_conv2d_backward_weights(device_x.view(), device_dy.view(), params(), dw.view(), {});
    expect_equal(dw, reference::conv_backward_weights(conv(), x, dy));
  });
}

TEST_P(DirectConvolution, BiasResidualActivation) {
  const std::int64_t count = conv().y_size();
  Values y = eighths(count, 1);
  const Values bias = eighths(conv().o, 2), residual = eighths(count, 3);
  for (double& value : y) value *= 8;  // beyond ReLU6's upper end
  const Array device_bias({conv().o}, wide(), bias), device_residual(y_shape(), dtype(), residual);
  in_all_orders([&] {
    for (const bool biased : {false, true}) {
      for (const bool residual_added : {false, true}) {
        for (const auto act : {kernels::Activation::identity, kernels::Activation::relu, kernels::Activation::relu6}) {
          Values expected = y;
          for (std::size_t i = 0; i < expected.size(); ++i) {
            if (biased) expected[i] += bias[i % bias.size()];
            if (residual_added) expected[i] += residual[i];
            if (act != kernels::Activation::identity) expected[i] = std::max(0.0, expected[i]);
            if (act == kernels::Activation::relu6) expected[i] = std::min(6.0, expected[i]);
          }
          const Array device_y(y_shape(), dtype(), y);
          kernels::bias_residual_activation(
              {biased ? device_bias.view() : View(), residual_added ? device_residual.view() : View(), act},
              device_y.view(), {});
          expect_equal(device_y, expected);
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(, DirectConvolution,
                         testing::Combine(testing::Values(Case{"plain", {2, 5, 6, 3, 4, 3, 3, 1, 1, 1}},
                                                          Case{"packed", {2, 3, 5, 3, 16, 1, 1, 1, 0, 1}},
                                                          Case{"strided", {2, 7, 5, 4, 6, 3, 3, 2, 1, 1}},
                                                          Case{"pointwise", {3, 4, 4, 5, 7, 1, 1, 2, 0, 1}},
                                                          Case{"grouped", {1, 5, 5, 6, 4, 3, 2, 1, 0, 2}},
                                                          Case{"depthwise", {2, 6, 6, 5, 5, 3, 3, 2, 1, 5}},
                                                          // stride beyond the kernel: input pixels that no output reads
                                                          Case{"sparse", {1, 9, 9, 2, 3, 2, 2, 3, 0, 1}},
                                                          Case{"dilated", {2, 8, 7, 3, 4, 3, 3, 1, 2, 1, 2, 2}},
                                                          Case{"dilated_strided",
                                                               {1, 11, 9, 4, 6, 3, 2, 2, 1, 2, 3, 2}}),
                                          testing::Values(DType::f64, DType::f32, DType::bf16)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) + "_" + name_of(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace retort::simt
