#include "engine/autograd.h"

#include <algorithm>
#include <queue>

#include "engine/stream.h"

namespace retort::autograd {
namespace {

thread_local bool recording = true;
thread_local std::uint64_t next_sequence = 0;

bool needs_grad(const Tensor& t) {
  return t.defined() && t.requires_grad();
}

// Adds one contribution to what a tensor has received. A leaf's buffer keeps its own type; elsewhere the first
// contribution is taken as it is, and a second one is added in place only if nobody else looks at the first.
void deliver(Meta& meta, Tensor contribution) {
  const Stream stream = current_stream(contribution.device());
  kernels::Backend& backend = contribution.backend();
  const bool leaf = meta.producer == nullptr;
  if (!meta.has_grad) {
    if (leaf && meta.grad) {
      backend.convert(contribution, meta.grad.view(), stream);
    } else {
      meta.grad = leaf && !contribution.exclusive() ? contribution.clone() : std::move(contribution);
    }
    meta.has_grad = true;
    return;
  }
  if (leaf || meta.grad.exclusive()) {
    backend.accumulate(contribution, meta.grad.view(), stream);
    return;
  }
  Tensor total = Tensor::empty(contribution.shape(), contribution.dtype(), contribution.device());
  backend.add(meta.grad, contribution, total.view(), stream);
  meta.grad = std::move(total);
}

struct Later {
  bool operator()(const Meta* a, const Meta* b) const { return a->producer->sequence < b->producer->sequence; }
};

}  // namespace

bool Needs::is_single(std::size_t input) const {
  return std::count(inputs_.begin(), inputs_.end(), inputs_[input]) == 1;
}

Tensor Needs::place(std::size_t input, const Shape& shape, DType dtype, Device device) const {
  const Meta* const meta = inputs_[input].get();
  if (meta == nullptr || meta->producer || meta->has_grad || !meta->grad || meta->grad.dtype() != dtype ||
      meta->grad.shape() != shape || !is_single(input)) {
    return Tensor::empty(shape, dtype, device);
  }
  in_place_[input] = true;
  return meta->grad;
}

Tensor Needs::received(std::size_t input, const Shape& shape, DType dtype) const {
  const Meta* const meta = inputs_[input].get();
  if (meta == nullptr || !meta->has_grad || meta->grad.dtype() != dtype || meta->grad.shape() != shape ||
      !(meta->producer == nullptr || meta->grad.exclusive()) || !is_single(input)) {
    return {};
  }
  in_place_[input] = true;
  return meta->grad;
}

bool grad_enabled() {
  return recording;
}

NoGradGuard::NoGradGuard() : previous_(recording) {
  recording = false;
}
NoGradGuard::~NoGradGuard() {
  recording = previous_;
}

bool active(std::initializer_list<const Tensor*> inputs) {
  return recording && std::any_of(inputs.begin(), inputs.end(), [](const Tensor* t) { return needs_grad(*t); });
}

bool active(const std::vector<Tensor>& inputs) {
  return recording && std::any_of(inputs.begin(), inputs.end(), needs_grad);
}

void record(const char* op, Tensor& result, const std::vector<Tensor>& inputs, Backward backward) {
  auto node = std::make_shared<Node>();
  node->op = op;
  node->sequence = ++next_sequence;
  node->backward = std::move(backward);
  for (const Tensor& input : inputs) {
    node->inputs.push_back(needs_grad(input) ? input.meta() : nullptr);
  }
  auto meta = std::make_shared<Meta>();
  meta->requires_grad = true;
  meta->producer = std::move(node);
  result.set_meta(std::move(meta));
}

void require_no_grad(const char* op, std::initializer_list<const Tensor*> inputs) {
  check(!active(inputs), "{}: has no backward, but an input requires a gradient; detach() it or use no-grad mode", op);
}

void backward(const Tensor& root) {
  check(root.numel() == 1, "backward: needs a scalar, got shape {}", root.shape().to_string());
  check(root.requires_grad(), "backward: the scalar does not depend on anything that requires a gradient");
  const NoGradGuard no_grad;

  // Nodes run in the reverse order of their making, so each one has all its contributions when its turn comes.
  std::priority_queue<Meta*, std::vector<Meta*>, Later> ready;
  std::vector<std::shared_ptr<Meta>> alive{root.meta()};
  deliver(*root.meta(), Tensor::full(root.shape(), 1.0, root.dtype(), root.device()));
  if (root.meta()->producer) ready.push(root.meta().get());

  while (!ready.empty()) {
    Meta* const meta = ready.top();
    ready.pop();
    Node& node = *meta->producer;
    check(static_cast<bool>(node.backward), "{}: backward() a second time through the same graph", node.op);
    Tensor dy = std::move(meta->grad);
    meta->grad = Tensor();
    meta->has_grad = false;
    const Backward run = std::move(node.backward);
    node.backward = nullptr;
    const Needs needs(node.inputs);
    std::vector<Tensor> gradients = run(std::move(dy), needs);
    check(gradients.size() == node.inputs.size(), "{}: backward returned {} gradients for {} inputs", node.op,
          gradients.size(), node.inputs.size());
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (!needs[i]) continue;
      check(gradients[i].defined(), "{}: backward gave no gradient for input {}", node.op, i);
      const std::shared_ptr<Meta>& input = node.inputs[i];
      if (needs.in_place(i)) {
        input->has_grad = true;
        continue;
      }
      if (input->producer && !input->has_grad) {
        ready.push(input.get());
        alive.push_back(input);
      }
      deliver(*input, std::move(gradients[i]));
    }
    node.inputs.clear();
  }
}

}  // namespace retort::autograd
