#include "engine/ops/pool.h"

#include <algorithm>
#include <limits>

#include "engine/ops/common.h"
#include "engine/ops/shape.h"

namespace retort {

using namespace ops;

namespace {

// The output's extent along one axis, such that every window sees at least one pixel.
std::int64_t pooled(const char* op, const char* axis, std::int64_t in, std::int64_t kernel, std::int64_t stride,
                    std::int64_t pad, std::int64_t pad_end, std::int64_t dilation, bool ceil_mode) {
  check(kernel > 0 && stride > 0 && dilation > 0 && in > 0, "{}: kernel {}, stride {}, dilation {} over {} {}", op,
        kernel, stride, dilation, in, axis);
  check(pad >= 0 && pad < kernel && pad_end < kernel,
        "{}: {} padded by {} and {}, which must be less than the kernel {}", op, axis, pad, pad_end, kernel);
  const std::int64_t padded = in + pad + pad_end, reach = dilation * (kernel - 1) + 1;
  check(reach <= padded, "{}: the kernel reaches over {} of {} {}, padding included", op, reach, padded, axis);
  check(padded + reach + stride <= std::numeric_limits<std::int32_t>::max(),
        "{}: {} {}, kernel {}, stride {}: too many", op, padded, axis, kernel, stride);
  std::int64_t out = (padded - reach + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if ((out - 1) * stride >= in + pad) --out;
  for (std::int64_t o = 0; dilation > 1 && o < out; ++o) {
    const std::int64_t start = o * stride - pad, first = start < 0 ? (dilation + start % dilation) % dilation : start;
    check(first < std::min(start + reach, in), "{}: window {} of kernel {} with dilation {} sees none of {} {}", op, o,
          kernel, dilation, in, axis);
  }
  return out;
}

Shape pooled_shape(const char* op, const Tensor& x, const PoolParams& p) {
  check_floating(op, x);
  check_rank(op, "the input [N, H, W, C]", x, 4);
  return {x.dim(0), pooled(op, "rows", x.dim(1), p.kernel_h, p.stride_h, p.pad_h, p.end_h(), p.dilation_h, p.ceil_mode),
          pooled(op, "columns", x.dim(2), p.kernel_w, p.stride_w, p.pad_w, p.end_w(), p.dilation_w, p.ceil_mode),
          x.dim(3)};
}

}  // namespace

Tensor max_pool(const Tensor& x, const PoolParams& params) {
  const Shape shape = pooled_shape("max_pool", x, params);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  Tensor argmax = Tensor::empty(shape, DType::i32, x.device());
  x.backend().max_pool(x, params, y.view(), argmax.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("max_pool", y, {x}, [argmax, params, from = x.shape()](Tensor dy, const autograd::Needs&) {
      Tensor dx = Tensor::empty(from, dy.dtype(), dy.device());
      dy.backend().max_pool_backward(dy, argmax, params, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor average_pool(const Tensor& x, const PoolParams& params) {
  check(params.dilation_h == 1 && params.dilation_w == 1, "average_pool: dilation {}x{}, but only max_pool knows it",
        params.dilation_h, params.dilation_w);
  Tensor y = Tensor::empty(pooled_shape("average_pool", x, params), x.dtype(), x.device());
  x.backend().average_pool(x, params, y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("average_pool", y, {x}, [params, from = x.shape()](Tensor dy, const autograd::Needs&) {
      Tensor dx = Tensor::empty(from, dy.dtype(), dy.device());
      dy.backend().average_pool_backward(dy, params, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor adaptive_average_pool(const Tensor& x, std::int64_t height, std::int64_t width) {
  check_floating("adaptive_average_pool", x);
  check_rank("adaptive_average_pool", "the input [N, H, W, C]", x, 4);
  check(height > 0 && width > 0 && x.dim(1) > 0 && x.dim(2) > 0, "adaptive_average_pool: {} to {}x{}",
        x.shape().to_string(), height, width);
  Tensor y = Tensor::empty({x.dim(0), height, width, x.dim(3)}, x.dtype(), x.device());
  x.backend().adaptive_average_pool(x, y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("adaptive_average_pool", y, {x}, [from = x.shape()](Tensor dy, const autograd::Needs&) {
      Tensor dx = Tensor::empty(from, dy.dtype(), dy.device());
      dy.backend().adaptive_average_pool_backward(dy, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor global_average_pool(const Tensor& x) {
  return flatten(adaptive_average_pool(x, 1, 1));
}

}  // namespace retort
