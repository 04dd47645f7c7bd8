#include "engine/trace.h"

#include <algorithm>

namespace retort {
namespace {

// The same elements, seen the same way: detach() keeps that, reshaped() and slice() do not.
bool same_value(const Tensor& a, const Tensor& b) {
  return a.view().data == b.view().data && a.shape() == b.shape() && a.dtype() == b.dtype();
}

bool shares_memory(const Tensor& a, const Tensor& b) {
  const View va = a.view(), vb = b.view();
  const char *first_a = static_cast<const char*>(va.data), *first_b = static_cast<const char*>(vb.data);
  return first_a < first_b + vb.bytes() && first_b < first_a + va.bytes();
}

}  // namespace

void Trace::allocated(const void* data, std::size_t bytes) {
  const char* const first = static_cast<const char*>(data);
  made_.emplace_back(first, first + std::max<std::size_t>(bytes, 1));
}

TraceSource Trace::source_of(const Tensor& value, std::string_view user) const {
  for (std::size_t i = 0; i < given_.size(); ++i) {
    if (same_value(given_[i], value)) return {TraceSource::Kind::given, i};
  }
  for (std::size_t i = steps_.size(); i-- > 0;) {
    if (same_value(steps_[i].output, value)) return {TraceSource::Kind::step, i};
  }
  const char* const data = static_cast<const char*>(value.view().data);
  const bool made = std::any_of(made_.begin(), made_.end(),
                                [&](const auto& range) { return data >= range.first && data < range.second; }) ||
                    std::any_of(given_.begin(), given_.end(), [&](const Tensor& g) { return shares_memory(g, value); });
  check(!made, "{}: its input {} {} was made in the forward pass by something that does not record itself", user,
        name_of(value.dtype()), value.shape().to_string());
  return {};
}

void Trace::check_complete(const Tensor& result) const {
  for (const TraceStep& step : steps_) {
    for (const Tensor& input : step.inputs) {
      if (input) source_of(input, step.op);
    }
    if (step.op != "full") continue;
    const double value = Tensor::full({1}, std::get<double>(step.attributes), step.output.dtype(), {}).item();
    const std::vector<double> held = step.output.to_doubles();
    check(std::all_of(held.begin(), held.end(), [&](double v) { return v == value; }),
          "full: {} {} filled with {} was written to by something that does not record itself",
          name_of(step.output.dtype()), step.output.shape().to_string(), value);
  }
  const TraceSource source = source_of(result, "the result");
  check(source.kind != TraceSource::Kind::constant, "the result does not depend on anything that was traced");
}

TraceGuard::TraceGuard(Trace& trace) : previous_(std::exchange(trace::active, &trace)) {}
TraceGuard::~TraceGuard() {
  trace::active = previous_;
}

void trace::record_now(std::string_view op, const Tensor& output, const std::vector<Tensor>& inputs,
                       TraceAttributes attributes) {
  // detach(): a trace has no use for the graph of gradients.
  TraceStep step{op, {}, output.detach(), std::move(attributes)};
  for (const Tensor& input : inputs) step.inputs.push_back(input ? input.detach() : Tensor());
  active->add(std::move(step));
}

}  // namespace retort
