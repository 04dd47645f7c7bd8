#include "engine/ops/shape.h"

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

Tensor reshape(const Tensor& x, const Shape& shape) {
  Tensor y = x.reshaped(shape);
  trace::record("reshape", y, {&x});
  if (autograd::active({&x})) {
    autograd::record("reshape", y, {x}, [from = x.shape()](Tensor dy, const autograd::Needs&) {
      return std::vector<Tensor>{dy.reshaped(from)};
    });
  }
  return y;
}

Tensor flatten(const Tensor& x) {
  check(x.rank() >= 1, "flatten: of a scalar");
  return reshape(x, {x.dim(0), x.dim(0) == 0 ? 0 : x.numel() / x.dim(0)});
}

Tensor concatenate(const std::vector<Tensor>& inputs, int axis) {
  check(!inputs.empty(), "concatenate: no inputs");
  const Tensor& first = inputs[0];
  check(axis >= 0 && axis < first.rank(), "concatenate: axis {} of shape {}", axis, first.shape().to_string());
  Shape shape = first.shape();
  shape[axis] = 0;
  for (const Tensor& x : inputs) {
    check_device("concatenate", first, x);
    check(x.dtype() == first.dtype() && x.rank() == first.rank(), "concatenate: {} {} beside {} {}", name_of(x.dtype()),
          x.shape().to_string(), name_of(first.dtype()), first.shape().to_string());
    for (int i = 0; i < shape.rank(); ++i) {
      check(i == axis || x.dim(i) == shape[i], "concatenate: {} beside {} along axis {}", x.shape().to_string(),
            first.shape().to_string(), axis);
    }
    shape[axis] += x.dim(axis);
  }
  // Seen as matrices: `outer` rows, and in each row one piece an input.
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < axis; ++i) outer *= shape[i];
  for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  const std::int64_t pitch = shape[axis] * inner;

  Tensor y = Tensor::empty(shape, first.dtype(), first.device());
  std::vector<Shape> shapes;
  std::int64_t offset = 0;
  for (const Tensor& x : inputs) {
    const std::int64_t columns = x.dim(axis) * inner;
    const Tensor from_offset = y.slice(offset, {y.numel() - offset});
    x.backend().copy_rows(x, columns, from_offset.view(), pitch, outer, columns, stream_of(x));
    offset += columns;
    shapes.push_back(x.shape());
  }
  if (trace::active != nullptr) trace::record_now("concatenate", y, inputs, axis);
  if (autograd::active(inputs)) {
    autograd::record(
        "concatenate", y, inputs, [shapes, axis, inner, outer, pitch](Tensor dy, const autograd::Needs& needs) {
          std::vector<Tensor> gradients(shapes.size());
          std::int64_t at = 0;
          for (std::size_t i = 0; i < shapes.size(); ++i) {
            const std::int64_t columns = shapes[i][axis] * inner;
            if (needs[i]) {
              gradients[i] = Tensor::empty(shapes[i], dy.dtype(), dy.device());
              const Tensor from_offset = dy.slice(at, {dy.numel() - at});
              dy.backend().copy_rows(from_offset, pitch, gradients[i].view(), columns, outer, columns, stream_of(dy));
            }
            at += columns;
          }
          return gradients;
        });
  }
  return y;
}

}  // namespace retort
