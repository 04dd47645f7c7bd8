#include "engine/ops/reduce.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

namespace {

Tensor scaled_sum(const char* op, const Tensor& x, double factor) {
  check_floating(op, x);
  Tensor y = Tensor::empty({1}, accumulation_type(x.dtype()), x.device());
  x.backend().sum(x, factor, y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record(op, y, {x}, [factor, shape = x.shape(), dtype = x.dtype()](Tensor dy, const autograd::Needs&) {
      Tensor dx = Tensor::empty(shape, dtype, dy.device());
      dy.backend().broadcast(dy, factor, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

}  // namespace

Tensor sum(const Tensor& x) {
  return scaled_sum("sum", x, 1.0);
}

Tensor mean(const Tensor& x) {
  check(x.numel() > 0, "mean: of an empty tensor");
  return scaled_sum("mean", x, 1.0 / static_cast<double>(x.numel()));
}

bool all_finite(const Tensor& x) {
  check_floating("all_finite", x);
  const Tensor count = Tensor::zeros({1}, DType::i32, x.device());
  x.backend().accumulate_nonfinite(x, count.view(), stream_of(x));
  return count.item() == 0;
}

}  // namespace retort
