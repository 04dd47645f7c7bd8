#include "engine/ops/linear.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

namespace {

Tensor product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias, Math math) {
  const std::int64_t m = a.dim(transpose_a ? 1 : 0), n = b.dim(transpose_b ? 0 : 1);
  Tensor y = Tensor::empty({m, n}, a.dtype(), a.device());
  a.backend().matmul(a, transpose_a, b, transpose_b, bias, math, y.view(), stream_of(a));
  return y;
}

void check_operands(const char* op, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b) {
  check_floating(op, a);
  check_rank(op, "the left matrix", a, 2);
  check_rank(op, "the right matrix", b, 2);
  check_device(op, a, b);
  check(a.dtype() == b.dtype(), "{}: {} times {}", op, name_of(a.dtype()), name_of(b.dtype()));
  check(a.dim(transpose_a ? 0 : 1) == b.dim(transpose_b ? 1 : 0), "{}: {}{} times {}{} does not fit", op,
        a.shape().to_string(), transpose_a ? "^T" : "", b.shape().to_string(), transpose_b ? "^T" : "");
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Math math) {
  check_operands("matmul", a, transpose_a, b, transpose_b);
  Tensor y = product(a, transpose_a, b, transpose_b, Tensor(), math);
  trace::record("matmul", y, {&a, &b}, MatmulAttributes{transpose_a, transpose_b});
  if (autograd::active({&a, &b})) {
    autograd::record(
        "matmul", y, {a, b},
        [a = a.detach(), b = b.detach(), transpose_a, transpose_b, math](Tensor dy, const autograd::Needs& needs) {
          std::vector<Tensor> gradients(2);
          if (needs[0]) {
            gradients[0] = transpose_a ? product(b, transpose_b, dy, true, Tensor(), math)
                                       : product(dy, false, b, !transpose_b, Tensor(), math);
          }
          if (needs[1]) {
            gradients[1] = transpose_b ? product(dy, true, a, transpose_a, Tensor(), math)
                                       : product(a, !transpose_a, dy, false, Tensor(), math);
          }
          return gradients;
        });
  }
  return y;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Math math) {
  check_operands("linear", x, false, weight, true);
  if (bias) {
    check(bias.dtype() == accumulation_type(x.dtype()) && bias.numel() == weight.dim(0),
          "linear: bias {} {} for {} outputs of {}", name_of(bias.dtype()), bias.shape().to_string(), weight.dim(0),
          name_of(x.dtype()));
  }
  Tensor y = product(x, false, weight, true, bias, math);
  trace::record("linear", y, {&x, &weight, &bias});
  if (autograd::active({&x, &weight, &bias})) {
    autograd::record("linear", y, {x, weight, bias},
                     [x = x.detach(), weight = weight.detach(), math](Tensor dy, const autograd::Needs& needs) {
                       std::vector<Tensor> gradients(3);
                       if (needs[0]) gradients[0] = product(dy, false, weight, false, Tensor(), math);
                       if (needs[1]) {
                         gradients[1] = needs.place(1, weight.shape(), weight.dtype(), weight.device());
                         dy.backend().matmul(dy, true, x, false, {}, math, gradients[1].view(), stream_of(dy));
                       }
                       if (needs[2]) {
                         gradients[2] = needs.place(2, {dy.dim(1)}, accumulation_type(dy.dtype()), dy.device());
                         dy.backend().sum_rows(dy, gradients[2].view(), stream_of(dy));
                       }
                       return gradients;
                     });
  }
  return y;
}

}  // namespace retort
