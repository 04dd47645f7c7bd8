#include "engine/ops/elementwise.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

Tensor add(const Tensor& a, const Tensor& b) {
  check_floating("add", a);
  check_same("add", a, b);
  Tensor y = like(a);
  a.backend().add(a, b, y.view(), stream_of(a));
  trace::record("add", y, {&a, &b});
  if (autograd::active({&a, &b})) {
    autograd::record("add", y, {a, b}, [](Tensor dy, const autograd::Needs&) { return std::vector<Tensor>{dy, dy}; });
  }
  return y;
}

Tensor scale(const Tensor& x, double factor) {
  check_floating("scale", x);
  Tensor y = like(x);
  x.backend().scale(x, factor, y.view(), stream_of(x));
  trace::record("scale", y, {&x}, factor);
  if (autograd::active({&x})) {
    autograd::record("scale", y, {x}, [factor](Tensor dy, const autograd::Needs&) {
      Tensor dx = reuse(dy);
      dy.backend().scale(dy, factor, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor scale_by(const Tensor& x, const Tensor& factor) {
  check_floating("scale_by", x);
  check(factor.numel() == 1 && factor.dtype() == accumulation_type(x.dtype()), "scale_by: a factor {} of type {}",
        factor.shape().to_string(), name_of(factor.dtype()));
  autograd::require_no_grad("scale_by", {&factor});
  Tensor y = like(x);
  x.backend().scale_by(x, factor, y.view(), stream_of(x));
  trace::record("scale_by", y, {&x, &factor});
  if (autograd::active({&x})) {
    autograd::record("scale_by", y, {x}, [factor](Tensor dy, const autograd::Needs&) {
      Tensor dx = reuse(dy);
      dy.backend().scale_by(dy, factor, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor cast(const Tensor& x, DType dtype) {
  check_floating("cast", x);
  check(is_floating(dtype), "cast: to {}, which is no floating type", name_of(dtype));
  if (x.dtype() == dtype) return x;
  Tensor y = x.to(dtype);
  trace::record("cast", y, {&x});
  if (autograd::active({&x})) {
    autograd::record("cast", y, {x}, [from = x.dtype()](Tensor dy, const autograd::Needs&) {
      return std::vector<Tensor>{dy.to(from)};
    });
  }
  return y;
}

Tensor accumulated(const Tensor& x) {
  return cast(x, accumulation_type(x.dtype()));
}

Tensor square(const Tensor& x) {
  check_floating("square", x);
  Tensor y = like(x);
  x.backend().square(x, y.view(), stream_of(x));
  trace::record("square", y, {&x});
  if (autograd::active({&x})) {
    autograd::record("square", y, {x}, [x = x.detach()](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(dy);
      dy.backend().square_backward(x, dy, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor activation(const Tensor& x, Activation kind) {
  if (kind == Activation::identity) return x;
  check_floating("activation", x);
  Tensor y = like(x);
  x.backend().activation(x, kind, y.view(), stream_of(x));
  trace::record("activation", y, {&x}, kind);
  if (autograd::active({&x})) {
    // detach(): a closure must not own the tensor that owns the closure.
    autograd::record("activation", y, {x}, [y = y.detach(), kind](Tensor dy, const autograd::Needs&) {
      Tensor dx = reuse(dy);
      dy.backend().activation_backward(y, dy, kind, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor relu(const Tensor& x) {
  return activation(x, Activation::relu);
}
Tensor relu6(const Tensor& x) {
  return activation(x, Activation::relu6);
}

Tensor dropout(const Tensor& x, double p, const SampleContext& samples, std::uint32_t purpose) {
  check_floating("dropout", x);
  check(p >= 0 && p < 1, "dropout: probability {} is not in [0, 1)", p);
  check(samples.sample_ids && samples.epoch, "dropout: needs the sample numbers and the epoch of the batch");
  check(x.rank() >= 1 && samples.sample_ids.numel() == x.dim(0), "dropout: {} sample numbers for a batch of {}",
        samples.sample_ids.numel(), x.shape().to_string());
  if (p == 0) return x;
  const kernels::RandomKey key{samples.seed, purpose};
  Tensor y = like(x);
  x.backend().dropout(x, samples.sample_ids, samples.epoch, p, key, y.view(), stream_of(x));
  if (autograd::active({&x})) {
    autograd::record("dropout", y, {x}, [samples, p, key](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(dy);
      dy.backend().dropout(dy, samples.sample_ids, samples.epoch, p, key, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

}  // namespace retort
