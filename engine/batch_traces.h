// A forward pass traced (engine/trace.h) for a batch of 1 and one of 2, to tell what in it follows the batch.
#pragma once

#include <functional>

#include "engine/tensor.h"
#include "engine/trace.h"

namespace retort {

struct TracedPass {
  Trace trace;
  Tensor result;
};

struct BatchTraces {
  TracedPass one, two;
};

// `forward` goes from f32 [N, H, W, C] and is run on blank batches; `image` is [H, W, C]. Throws Error, which begins
// with the operator, where the passes differ in more than their first extents, or where a value came about behind the
// trace's back.
BatchTraces trace_batches(const std::function<Tensor(const Tensor&)>& forward, const Shape& image);

}  // namespace retort
