#include "engine/ops/pool.h"

#include "engine/ops/common.h"
#include "engine/ops/shape.h"

namespace retort {

using namespace ops;

namespace {

Shape pooled_shape(const char* op, const Tensor& x, const PoolParams& p) {
  check_floating(op, x);
  check_rank(op, "the input [N, H, W, C]", x, 4);
  check(p.kernel_h > 0 && p.kernel_w > 0 && p.stride_h > 0 && p.stride_w > 0, "{}: kernel {}x{}, stride {}x{}", op,
        p.kernel_h, p.kernel_w, p.stride_h, p.stride_w);
  check(p.pad_h >= 0 && p.pad_w >= 0 && 2 * p.pad_h <= p.kernel_h && 2 * p.pad_w <= p.kernel_w,
        "{}: padding {}x{} must be at most half the kernel {}x{}", op, p.pad_h, p.pad_w, p.kernel_h, p.kernel_w);
  check(x.dim(1) + 2 * p.pad_h >= p.kernel_h && x.dim(2) + 2 * p.pad_w >= p.kernel_w,
        "{}: the kernel {}x{} is larger than the padded input {}", op, p.kernel_h, p.kernel_w, x.shape().to_string());
  return {x.dim(0), (x.dim(1) + 2 * p.pad_h - p.kernel_h) / p.stride_h + 1,
          (x.dim(2) + 2 * p.pad_w - p.kernel_w) / p.stride_w + 1, x.dim(3)};
}

}  // namespace

Tensor max_pool(const Tensor& x, const PoolParams& params) {
  const Shape shape = pooled_shape("max_pool", x, params);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  Tensor argmax = Tensor::empty(shape, DType::i32, x.device());
  x.backend().max_pool(x, params, y.view(), argmax.view(), stream_of(x));
  trace::record("max_pool", y, {&x}, params);
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
  Tensor y = Tensor::empty(pooled_shape("average_pool", x, params), x.dtype(), x.device());
  x.backend().average_pool(x, params, y.view(), stream_of(x));
  trace::record("average_pool", y, {&x}, params);
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
  trace::record("adaptive_average_pool", y, {&x});
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
