#include "engine/ops/rows.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

Tensor softmax(const Tensor& x) {
  check_matrix("softmax", x);
  Tensor y = like(x);
  x.backend().softmax(x, y.view(), stream_of(x));
  trace::record("softmax", y, {&x});
  if (autograd::active({&x})) {
    autograd::record("softmax", y, {x}, [y = y.detach()](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(dy);
      dy.backend().softmax_backward(y, dy, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor log_softmax(const Tensor& x) {
  check_matrix("log_softmax", x);
  Tensor y = like(x);
  x.backend().log_softmax(x, y.view(), stream_of(x));
  trace::record("log_softmax", y, {&x});
  if (autograd::active({&x})) {
    autograd::record("log_softmax", y, {x}, [y = y.detach()](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(dy);
      dy.backend().log_softmax_backward(y, dy, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor l2_normalize(const Tensor& x, double epsilon) {
  check_matrix("l2_normalize", x);
  Tensor y = like(x), norm = Tensor::empty({x.dim(0)}, accumulation_type(x.dtype()), x.device());
  x.backend().l2_normalize(x, epsilon, y.view(), norm.view(), stream_of(x));
  trace::record("l2_normalize", y, {&x}, epsilon);
  if (autograd::active({&x})) {
    autograd::record("l2_normalize", y, {x}, [y = y.detach(), norm, epsilon](Tensor dy, const autograd::Needs&) {
      Tensor dx = like(dy);
      dy.backend().l2_normalize_backward(y, norm, dy, epsilon, dx.view(), stream_of(dy));
      return std::vector<Tensor>{dx};
    });
  }
  return y;
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, double smoothing) {
  check_labels("cross_entropy", logits, labels);
  check(smoothing >= 0 && smoothing < 1, "cross_entropy: label smoothing {} is not in [0, 1)", smoothing);
  check(logits.dim(0) > 0, "cross_entropy: an empty batch");
  const DType type = accumulation_type(logits.dtype());
  Tensor loss = Tensor::empty({1}, type, logits.device());
  Tensor log_sum_exp = Tensor::empty({logits.dim(0)}, type, logits.device());
  logits.backend().cross_entropy(logits, labels, smoothing, loss.view(), log_sum_exp.view(), stream_of(logits));
  if (autograd::active({&logits})) {
    autograd::record("cross_entropy", loss, {logits},
                     [logits = logits.detach(), labels, log_sum_exp, smoothing](Tensor dloss, const autograd::Needs&) {
                       Tensor dx = like(logits);
                       logits.backend().cross_entropy_backward(logits, labels, log_sum_exp, dloss, smoothing, dx.view(),
                                                               stream_of(logits));
                       return std::vector<Tensor>{dx};
                     });
  }
  return loss;
}

void accumulate_metrics(const Tensor& logits, const Tensor& labels, const Tensor& metrics) {
  check_labels("accumulate_metrics", logits, labels);
  check(metrics.dtype() == DType::f64 && metrics.numel() == 4 && metrics.device() == logits.device(),
        "accumulate_metrics: metrics must be f64 [4] on {}", logits.device().to_string());
  logits.backend().accumulate_metrics(logits, labels, metrics.view(), stream_of(logits));
}

}  // namespace retort
