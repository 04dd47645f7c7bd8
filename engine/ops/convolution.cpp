#include "engine/ops/convolution.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

namespace {

// One axis of a convolution.
struct Axis {
  std::int64_t padded, kernel, dilation, stride;
  // The kernel reaches over dilation (kernel - 1) + 1 pixels; nothing here overflows, whatever a file asks for.
  bool fits() const { return padded > 0 && kernel > 0 && kernel - 1 <= (padded - 1) / dilation; }
  std::int64_t outputs() const { return (padded - dilation * (kernel - 1) - 1) / stride + 1; }
};
Axis height_of(const Tensor& x, const Tensor& weight, const ConvParams& p) {
  return {x.dim(1) + 2 * std::int64_t{p.pad_h}, weight.dim(1), p.dilation_h, p.stride_h};
}
Axis width_of(const Tensor& x, const Tensor& weight, const ConvParams& p) {
  return {x.dim(2) + 2 * std::int64_t{p.pad_w}, weight.dim(2), p.dilation_w, p.stride_w};
}

void check_arguments(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvParams& p) {
  check_floating(op, x);
  check_rank(op, "the input [N, H, W, C]", x, 4);
  check_rank(op, "the weight [O, KH, KW, C / groups]", weight, 4);
  check_device(op, x, weight);
  check(x.dtype() == weight.dtype(), "{}: {} input with {} weight", op, name_of(x.dtype()), name_of(weight.dtype()));
  check(p.stride_h > 0 && p.stride_w > 0 && p.pad_h >= 0 && p.pad_w >= 0 && p.dilation_h > 0 && p.dilation_w > 0 &&
            p.groups > 0,
        "{}: stride {}x{}, padding {}x{}, dilation {}x{}, {} groups", op, p.stride_h, p.stride_w, p.pad_h, p.pad_w,
        p.dilation_h, p.dilation_w, p.groups);
  check(x.dim(3) == weight.dim(3) * p.groups && weight.dim(0) % p.groups == 0,
        "{}: input {} with weight {} in {} group(s)", op, x.shape().to_string(), weight.shape().to_string(), p.groups);
  check(height_of(x, weight, p).fits() && width_of(x, weight, p).fits(),
        "{}: the kernel of weight {}, dilated {}x{}, is larger than the input {}, padded {}x{}", op,
        weight.shape().to_string(), p.dilation_h, p.dilation_w, x.shape().to_string(), p.pad_h, p.pad_w);
  if (bias) {
    check(bias.dtype() == accumulation_type(x.dtype()) && bias.numel() == weight.dim(0),
          "{}: bias {} {} for {} output channels of {}", op, name_of(bias.dtype()), bias.shape().to_string(),
          weight.dim(0), name_of(x.dtype()));
  }
}

Tensor output_of(const Tensor& x, const Tensor& weight, const ConvParams& p) {
  return Tensor::empty({x.dim(0), height_of(x, weight, p).outputs(), width_of(x, weight, p).outputs(), weight.dim(0)},
                       x.dtype(), x.device());
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvParams& params) {
  check_arguments("conv2d", x, weight, bias, params);
  Tensor y = output_of(x, weight, params);
  x.backend().conv2d(x, weight, {.bias = bias}, params, y.view(), stream_of(x));
  trace::record("conv2d", y, {&x, &weight, &bias}, ConvAttributes{params});
  if (autograd::active({&x, &weight, &bias})) {
    autograd::record("conv2d", y, {x, weight, bias},
                     [x = x.detach(), weight = weight.detach(), params](Tensor dy, const autograd::Needs& needs) {
                       kernels::Backend& backend = dy.backend();
                       std::vector<Tensor> gradients(3);
                       if (needs[1]) {
                         gradients[1] = needs.place(1, weight.shape(), weight.dtype(), weight.device());
                         backend.conv2d_backward_weights(x, dy, params, gradients[1].view(), stream_of(dy));
                       }
                       if (needs[2]) {
                         gradients[2] = needs.place(2, {dy.dim(3)}, accumulation_type(dy.dtype()), dy.device());
                         backend.sum_rows(dy, gradients[2].view(), stream_of(dy));
                       }
                       if (!needs[0]) return gradients;
                       gradients[0] = needs.received(0, x.shape(), x.dtype());
                       if (gradients[0]) {
                         backend.accumulate_conv2d_backward_data(dy, weight, params, gradients[0].view(),
                                                                 stream_of(dy));
                       } else {
                         gradients[0] = like(x);
                         backend.conv2d_backward_data(dy, weight, params, gradients[0].view(), stream_of(dy));
                       }
                       return gradients;
                     });
  }
  return y;
}

Tensor conv2d_inference(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                        Activation act, const ConvParams& params) {
  constexpr const char* kName = "conv2d_inference";
  check_arguments(kName, x, weight, bias, params);
  autograd::require_no_grad(kName, {&x, &weight, &bias, &residual});
  Tensor y = output_of(x, weight, params);
  if (residual) check_same(kName, y, residual);
  x.backend().conv2d(x, weight, {bias, residual, act}, params, y.view(), stream_of(x));
  trace::record(kName, y, {&x, &weight, &bias, &residual}, ConvAttributes{params, act});
  return y;
}

}  // namespace retort
