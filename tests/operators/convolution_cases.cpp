// The rows of the operator table for convolutions.
#include <algorithm>

#include "engine/ops.h"
#include "tests/operators/operator_table.h"
#include "tests/support/reference_conv.h"

namespace retort::testing {
namespace {

ConvParams params_of(const reference::Conv& s, Math math) {
  ConvParams params;
  params.stride_h = params.stride_w = static_cast<int>(s.stride);
  params.pad_h = params.pad_w = static_cast<int>(s.pad);
  params.dilation_h = static_cast<int>(s.dilation_h);
  params.dilation_w = static_cast<int>(s.dilation_w);
  params.groups = static_cast<int>(s.groups);
  params.math = math;
  return params;
}

void add_convolution(std::vector<OperatorCase>& rows, const std::string& name, const reference::Conv& s, bool bias,
                     Math math = Math::strict, double f32_tolerance = 2e-6) {
  const ConvParams params = params_of(s, math);
  std::vector<Input> inputs{normal({s.n, s.h, s.w, s.c}), normal({s.o, s.kh, s.kw, s.c / s.groups}, 0.3)};
  if (bias) inputs.push_back(parameter(s.o));
  rows.push_back(
      {.name = name,
       .inputs = inputs,
       .apply = [params, bias](const Tensors& in) { return conv2d(in[0], in[1], bias ? in[2] : Tensor(), params); },
       .expected =
           [s, bias](const Arrays& in) {
             return Array(
                 {s.n, s.oh(), s.ow(), s.o},
                 reference::conv_forward(s, in[0].values, in[1].values, bias ? in[2].values : std::vector<double>()));
           },
       .f32_tolerance = f32_tolerance,
       .f32_gradient_tolerance = std::max(1e-5, f32_tolerance),
       .gradient = {.max_elements = 48}});
}

struct Shaped {
  const char* name;
  reference::Conv conv;
  Math math = Math::strict;
  double f32_tolerance = 2e-6;
};

void add_inference(std::vector<OperatorCase>& rows, const Shaped& shaped, bool bias, bool residual, Activation act) {
  const reference::Conv& s = shaped.conv;
  const ConvParams params = params_of(s, shaped.math);
  const Shape y{s.n, s.oh(), s.ow(), s.o};
  std::vector<Input> inputs{normal({s.n, s.h, s.w, s.c}), normal({s.o, s.kh, s.kw, s.c / s.groups}, 0.3)};
  if (bias) inputs.push_back(parameter(s.o));
  if (residual) inputs.push_back(normal(y, 2.0));
  rows.push_back({.name = std::string("conv2d_inference_") + shaped.name + (bias ? "_bias" : "") +
                          (residual ? "_residual" : "") + suffix(act),
                  .inputs = inputs,
                  .apply =
                      [=](const Tensors& in) {
                        return conv2d_inference(in[0], in[1], bias ? in[2] : Tensor(), residual ? in.back() : Tensor(),
                                                act, params);
                      },
                  .expected =
                      [=](const Arrays& in) {
                        Array sum(y, reference::conv_forward(s, in[0].values, in[1].values,
                                                             bias ? in[2].values : std::vector<double>()));
                        return reference::activation(residual ? reference::add(sum, in.back()) : sum, act);
                      },
                  .f32_tolerance = shaped.f32_tolerance,
                  .has_backward = false});
}

void add_inferences(std::vector<OperatorCase>& rows) {
  // The widest takes Winograd on the CPU, whose rounding error is larger than that of the direct algorithms.
  const Shaped winograd{
      "winograd", {.n = 3, .h = 9, .w = 8, .c = 16, .o = 32, .kh = 3, .kw = 3, .pad = 1}, Math::standard, 2e-5};
  const Shaped pointwise{"1x1", {.n = 2, .h = 5, .w = 4, .c = 16, .o = 24, .kh = 1, .kw = 1}};
  const std::vector<Shaped> others{
      {"3x3_stride2", {.n = 2, .h = 7, .w = 6, .c = 16, .o = 16, .kh = 3, .kw = 3, .stride = 2, .pad = 1}},
      {"odd_channels", {.n = 2, .h = 5, .w = 6, .c = 3, .o = 7, .kh = 3, .kw = 3, .pad = 1}, Math::standard},
      {"groups", {.n = 2, .h = 5, .w = 4, .c = 6, .o = 4, .kh = 3, .kw = 3, .pad = 1, .groups = 2}},
      {"dilated",
       {.n = 2, .h = 8, .w = 7, .c = 16, .o = 16, .kh = 3, .kw = 3, .pad = 2, .dilation_h = 2, .dilation_w = 2},
       Math::standard}};
  for (const Activation act : {Activation::identity, Activation::relu, Activation::relu6}) {
    for (const bool bias : {false, true}) {
      for (const bool residual : {false, true}) {
        add_inference(rows, winograd, bias, residual, act);
        add_inference(rows, pointwise, bias, residual, act);
      }
    }
    for (const Shaped& other : others) {
      add_inference(rows, other, true, false, act);
      add_inference(rows, other, true, true, act);
    }
  }
}

}  // namespace

void add_convolutions(std::vector<OperatorCase>& rows) {
  add_convolution(rows, "conv2d_3x3", {.n = 2, .h = 6, .w = 5, .c = 3, .o = 4, .kh = 3, .kw = 3, .pad = 1}, false);
  add_convolution(rows, "conv2d_3x3_bias", {.n = 1, .h = 5, .w = 5, .c = 2, .o = 5, .kh = 3, .kw = 3, .pad = 1}, true);
  add_convolution(rows, "conv2d_3x3_stride2",
                  {.n = 2, .h = 7, .w = 6, .c = 4, .o = 3, .kh = 3, .kw = 3, .stride = 2, .pad = 1}, false);
  add_convolution(rows, "conv2d_1x1_stride2", {.n = 2, .h = 4, .w = 4, .c = 8, .o = 6, .kh = 1, .kw = 1, .stride = 2},
                  false);
  add_convolution(rows, "conv2d_7x7_stride2",
                  {.n = 1, .h = 13, .w = 11, .c = 3, .o = 2, .kh = 7, .kw = 7, .stride = 2, .pad = 3}, false);
  add_convolution(rows, "conv2d_no_padding", {.n = 2, .h = 5, .w = 5, .c = 3, .o = 3, .kh = 3, .kw = 3}, true);
  add_convolution(rows, "conv2d_groups",
                  {.n = 2, .h = 5, .w = 4, .c = 6, .o = 4, .kh = 3, .kw = 3, .pad = 1, .groups = 2}, true);
  add_convolution(rows, "conv2d_depthwise",
                  {.n = 2, .h = 5, .w = 5, .c = 7, .o = 7, .kh = 3, .kw = 3, .pad = 1, .groups = 7}, false);
  add_convolution(
      rows, "conv2d_dilated",
      {.n = 2, .h = 8, .w = 7, .c = 3, .o = 4, .kh = 3, .kw = 3, .pad = 2, .dilation_h = 2, .dilation_w = 2}, true);
  add_convolution(rows, "conv2d_dilated_unequally_stride2",
                  {.n = 2,
                   .h = 11,
                   .w = 9,
                   .c = 2,
                   .o = 3,
                   .kh = 3,
                   .kw = 2,
                   .stride = 2,
                   .pad = 1,
                   .dilation_h = 3,
                   .dilation_w = 2},
                  false);
  add_convolution(rows, "conv2d_dilated_depthwise",
                  {.n = 1,
                   .h = 7,
                   .w = 8,
                   .c = 5,
                   .o = 5,
                   .kh = 3,
                   .kw = 3,
                   .pad = 2,
                   .groups = 5,
                   .dilation_h = 2,
                   .dilation_w = 2},
                  false);
  // Wide enough for the fast algorithms, whose rounding error is larger than that of the direct ones.
  add_convolution(rows, "conv2d_standard_math", {.n = 2, .h = 9, .w = 8, .c = 64, .o = 64, .kh = 3, .kw = 3, .pad = 1},
                  false, Math::standard, 2e-5);
  add_inferences(rows);
}

}  // namespace retort::testing
