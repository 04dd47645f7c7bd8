// Reverse-mode differentiation, define by run. An operator computes its result, and where gradients are on and an
// input needs one, record() attaches a closure that turns the result's gradient into the inputs' gradients.
//
// An edge of the graph holds no tensor data: only what a closure captures stays alive until backward() has run it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

#include "engine/tensor.h"

namespace retort::autograd {

// Which inputs, in the order given to record(), need a gradient, and where a closure may put it to spare a copy.
class Needs {
 public:
  explicit Needs(const std::vector<std::shared_ptr<Meta>>& inputs) : inputs_(inputs), in_place_(inputs.size()) {}

  bool operator[](std::size_t input) const { return inputs_[input] != nullptr; }

  // Memory for the gradient of an input: the buffer of a leaf that nothing has reached yet, else memory of its own. The
  // closure overwrites it and returns it.
  Tensor place(std::size_t input, const Shape& shape, DType dtype, Device device) const;
  // What has reached an input so far: the closure adds its contribution to it and returns it. Undefined where nothing
  // has, or where somebody else looks at it.
  Tensor received(std::size_t input, const Shape& shape, DType dtype) const;

  // Whether one of the two handed out memory of the input's own, so that nothing is left to deliver.
  bool in_place(std::size_t input) const { return in_place_[input]; }

 private:
  bool is_single(std::size_t input) const;  // not the operator's input twice

  const std::vector<std::shared_ptr<Meta>>& inputs_;
  mutable std::vector<bool> in_place_;
};

// From the gradient of the result to those of the inputs; an entry that Needs does not ask for may stay undefined.
// `dy` is handed over: where dy.exclusive(), the closure may overwrite it and return it.
using Backward = std::function<std::vector<Tensor>(Tensor dy, const Needs& needs)>;

struct Node {
  const char* op = "";
  std::uint64_t sequence = 0;
  std::vector<std::shared_ptr<Meta>> inputs;  // null where the input needs no gradient
  Backward backward;
};

// The part of a tensor that the graph refers to.
struct Meta {
  bool requires_grad = false;
  std::shared_ptr<Node> producer;  // null for a leaf
  Tensor grad;                     // leaf: its gradient or the buffer for it; else: what has arrived so far
  bool has_grad = false;           // grad holds a contribution
};

bool grad_enabled();

// Switches recording off in this thread while it lives.
class NoGradGuard {
 public:
  NoGradGuard();
  ~NoGradGuard();
  NoGradGuard(const NoGradGuard&) = delete;
  NoGradGuard& operator=(const NoGradGuard&) = delete;

 private:
  bool previous_;
};

// True when a result of these inputs has to be recorded. Undefined tensors count as needing no gradient.
bool active(std::initializer_list<const Tensor*> inputs);
bool active(const std::vector<Tensor>& inputs);

// Attaches `backward` to `result`; call only when active(inputs).
void record(const char* op, Tensor& result, const std::vector<Tensor>& inputs, Backward backward);

// For operators without a backward: throws when a gradient would be lost.
void require_no_grad(const char* op, std::initializer_list<const Tensor*> inputs);

// See Tensor::backward(). Contributions are added in a fixed order: the reverse of the order of the forward.
void backward(const Tensor& root);

}  // namespace retort::autograd
