#include "engine/batch_traces.h"

#include "engine/autograd.h"

namespace retort {
namespace {

TracedPass run(const std::function<Tensor(const Tensor&)>& forward, const Shape& image, std::int64_t batch) {
  const autograd::NoGradGuard no_grad;
  // Not the same pixels twice, either.
  const Tensor x = Tensor::full({batch, image[0], image[1], image[2]}, batch == 1 ? 0.0 : 1.0, DType::f32, {});
  TracedPass traced{Trace({x}), {}};
  {
    const TraceGuard guard(traced.trace);
    traced.result = forward(x);
  }
  traced.trace.check_complete(traced.result);
  return traced;
}

// Batches of 1 and of 2 must have taken the same way, save for the first extent.
void check_same(const Trace& one, const Trace& two) {
  bool same = one.steps().size() == two.steps().size();
  for (std::size_t i = 0; same && i < one.steps().size(); ++i) {
    const TraceStep &a = one.steps()[i], &b = two.steps()[i];
    const Tensor &x = a.output, &y = b.output;
    same = a.op == b.op && a.inputs.size() == b.inputs.size() && x.rank() == y.rank() && x.rank() > 0;
    for (int d = 0; same && d < x.rank(); ++d) same = x.dim(d) == y.dim(d) || (d == 0 && 2 * x.dim(0) == y.dim(0));
    for (std::size_t k = 0; same && k < a.inputs.size(); ++k) {
      const Tensor &p = a.inputs[k], &q = b.inputs[k];
      same = p.defined() == q.defined();
      if (!same || !p) continue;
      const TraceSource from = one.source_of(p, a.op), other = two.source_of(q, b.op);
      const bool constant = from.kind == TraceSource::Kind::constant;
      same = from.kind == other.kind && from.index == other.index && (!constant || p.view().data == q.view().data);
    }
    check(same, "{}: step {} of the forward pass is another for another batch; that cannot be exported", a.op, i + 1);
  }
  check(same, "export: the forward pass has {} steps for one image and {} for two; that cannot be exported",
        one.steps().size(), two.steps().size());
}

}  // namespace

BatchTraces trace_batches(const std::function<Tensor(const Tensor&)>& forward, const Shape& image) {
  BatchTraces traces{run(forward, image, 1), run(forward, image, 2)};
  check_same(traces.one.trace, traces.two.trace);
  return traces;
}

}  // namespace retort
