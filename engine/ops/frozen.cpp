#include "engine/ops/frozen.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <limits>
#include <vector>

#include "engine/ops/common.h"

namespace retort {

using namespace ops;

namespace {

using Strides = std::array<std::int64_t, Walk::kMaxRank>;

// The elements that the walk visits.
std::int64_t checked_count(const char* op, const Walk& walk) {
  check(walk.rank >= 0 && walk.rank <= Walk::kMaxRank, "{}: a walk of rank {}, at most {} is possible", op, walk.rank,
        Walk::kMaxRank);
  const auto begin = walk.extents.begin(), end = begin + walk.rank;
  for (auto n = begin; n != end; ++n) check(*n >= 0, "{}: a walk over {} elements", op, *n);
  if (std::find(begin, end, 0) != end) return 0;
  std::int64_t count = 1;
  for (auto n = begin; n != end; ++n) {
    check(*n <= std::numeric_limits<std::int64_t>::max() / count, "{}: a walk over more than 2^63 elements", op);
    count *= *n;
  }
  return count;
}

void check_shape(const char* op, std::int64_t count, const Shape& shape) {
  check(count == shape.numel(), "{}: a walk over {} elements to shape {}", op, count, shape.to_string());
}

// All that a walk of at least one element reaches lies inside x. Nothing overflows: what is multiplied or added up is
// known to be no larger than x.
void check_inside(const char* op, const char* what, const Tensor& x, std::int64_t offset, const Walk& walk,
                  const Strides& strides) {
  const std::int64_t size = x.numel();
  std::int64_t low = 0, high = 0;
  bool inside = offset >= 0 && offset < size;
  for (std::size_t k = 0; inside && k < static_cast<std::size_t>(walk.rank); ++k) {
    const std::int64_t steps = walk.extents[k] - 1, stride = strides[k];
    if (steps == 0 || stride == 0) continue;
    inside = stride > -size && stride < size && steps <= size / std::abs(stride);
    if (!inside) break;
    (stride < 0 ? low : high) += steps * stride;
  }
  check(inside && offset + low >= 0 && offset + high < size, "{}: the walk leaves {} {}, beginning at element {}", op,
        what, x.shape().to_string(), offset);
}

// Sufficient, and true of every slice, transposition and piece of a concatenation.
void check_distinct(const char* op, const Walk& walk) {
  struct Axis {
    std::int64_t stride, steps;
  };
  std::vector<Axis> axes;
  for (std::size_t k = 0; k < static_cast<std::size_t>(walk.rank); ++k) {
    if (walk.extents[k] > 1) axes.push_back({std::abs(walk.b[k]), walk.extents[k] - 1});
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& p, const Axis& q) { return p.stride < q.stride; });
  std::int64_t reached = 0;
  for (const Axis& axis : axes) {
    check(axis.stride > reached, "{}: the walk writes to the same element more than once", op);
    reached += axis.steps * axis.stride;
  }
}

void check_apart(const char* op, const Tensor& x, const Tensor& y) {
  const auto begin = [](const Tensor& t) { return t.view().as<const char>(); };
  const auto end = [&](const Tensor& t) { return begin(t) + t.view().bytes(); };
  const std::less_equal<> not_behind;
  check(not_behind(end(x), begin(y)) || not_behind(end(y), begin(x)), "{}: the input {} and the output {} share memory",
        op, x.shape().to_string(), y.shape().to_string());
}

}  // namespace

Tensor unary(const Tensor& x, kernels::Unary kind, double alpha, double beta) {
  check_floating("unary", x);
  autograd::require_no_grad("unary", {&x});
  Tensor y = like(x);
  x.backend().unary(x, kind, alpha, beta, y.view(), stream_of(x));
  return y;
}

Tensor binary(const Tensor& a, const Tensor& b, kernels::Binary kind, const Walk& walk, const Shape& shape) {
  check_floating("binary", a);
  check_device("binary", a, b);
  check(a.dtype() == b.dtype(), "binary: {} with {}", name_of(a.dtype()), name_of(b.dtype()));
  autograd::require_no_grad("binary", {&a, &b});
  const std::int64_t count = checked_count("binary", walk);
  check_shape("binary", count, shape);
  Tensor y = Tensor::empty(shape, a.dtype(), a.device());
  if (count == 0) return y;
  check_inside("binary", "the first operand", a, 0, walk, walk.a);
  check_inside("binary", "the second operand", b, 0, walk, walk.b);
  a.backend().binary(a, b, kind, walk, y.view(), stream_of(a));
  return y;
}

Tensor strided_copy(const Tensor& x, std::int64_t offset, const Walk& walk, const Shape& shape) {
  autograd::require_no_grad("strided_copy", {&x});
  const std::int64_t count = checked_count("strided_copy", walk);
  check_shape("strided_copy", count, shape);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  if (count == 0) return y;
  check_inside("strided_copy", "the input", x, offset, walk, walk.a);
  Walk dense = walk;
  std::int64_t stride = 1;
  for (auto k = static_cast<std::size_t>(walk.rank); k-- > 0;) {
    dense.b[k] = stride;
    stride *= walk.extents[k];
  }
  x.backend().strided_copy(x, offset, y.view(), 0, dense, stream_of(x));
  return y;
}

void strided_copy_into(const Tensor& x, std::int64_t x_offset, Tensor& y, std::int64_t y_offset, const Walk& walk) {
  constexpr const char* kName = "strided_copy_into";
  check_device(kName, x, y);
  check(x.dtype() == y.dtype(), "{}: {} into {}", kName, name_of(x.dtype()), name_of(y.dtype()));
  autograd::require_no_grad(kName, {&x, &y});
  if (checked_count(kName, walk) == 0) return;
  check_inside(kName, "the input", x, x_offset, walk, walk.a);
  check_inside(kName, "the output", y, y_offset, walk, walk.b);
  check_distinct(kName, walk);
  check_apart(kName, x, y);
  x.backend().strided_copy(x, x_offset, y.view(), y_offset, walk, stream_of(x));
}

}  // namespace retort
