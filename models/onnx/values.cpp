// What the compiler does with values whatever operator asks for it: moving elements, arithmetic, means. Constants are
// computed on the spot, all else becomes steps.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/weight_file.h"
#include "models/onnx/compiler.h"

namespace retort::onnx {
namespace {

Extents permuted(const Extents& values, const std::vector<int>& order) {
  Extents out;
  for (const int axis : order) out.push_back(values[static_cast<std::size_t>(axis)]);
  return out;
}

// Strides as those of a value of `rank`, axes of extent 1 in front.
Extents led_by_ones(const Extents& values, std::size_t rank, std::int64_t one) {
  Extents out(rank - values.size(), one);
  out.insert(out.end(), values.begin(), values.end());
  return out;
}

// Runs of axes that hold the same elements before and after a reshape.
struct Group {
  std::size_t old_begin, old_end, new_begin, new_end;
};

std::vector<Group> groups_of(const Extents& from, const Extents& to) {
  std::vector<Group> groups;
  std::size_t i = 0, k = 0;
  while (i < from.size() || k < to.size()) {
    Group group{i, i, k, k};
    std::int64_t old_count = 1, new_count = 1;
    const auto take_old = [&] { old_count *= from[group.old_end++]; };
    const auto take_new = [&] { new_count *= to[group.new_end++]; };
    if (i < from.size()) take_old();
    if (k < to.size()) take_new();
    while (old_count != new_count) {
      if (old_count < new_count && group.old_end < from.size()) {
        take_old();
      } else if (group.new_end < to.size()) {
        take_new();
      } else {
        take_old();
      }
    }
    i = group.old_end;
    k = group.new_end;
    groups.push_back(group);
  }
  return groups;
}

}  // namespace

std::vector<int> plain_order(std::size_t rank) {
  std::vector<int> order(rank);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

bool has_order(const Value& x, const std::vector<int>& order) {
  const Extents strides = dense_strides(x.dims, order);
  for (std::size_t k = 0; k < x.dims.size(); ++k) {
    if (x.dims[k] > 1 && x.strides[k] != strides[k]) return false;
  }
  return true;
}

kernels::Walk make_walk(const Extents& extents, const Extents& a, const Extents& b) {
  Extents e, p, q;
  for (std::size_t k = 0; k < extents.size(); ++k) {
    if (extents[k] == 1) continue;
    if (!e.empty() && p.back() == a[k] * extents[k] && q.back() == b[k] * extents[k]) {
      e.back() *= extents[k];
      p.back() = a[k];
      q.back() = b[k];
    } else {
      e.push_back(extents[k]);
      p.push_back(a[k]);
      q.push_back(b[k]);
    }
  }
  check(e.size() <= kernels::Walk::kMaxRank, "the extents {} are of more axes than can be gone over (at most {})",
        shape_text(extents), kernels::Walk::kMaxRank);
  kernels::Walk walk;
  walk.rank = static_cast<int>(e.size());
  std::copy(e.begin(), e.end(), walk.extents.begin());
  std::copy(p.begin(), p.end(), walk.a.begin());
  std::copy(q.begin(), q.end(), walk.b.begin());
  return walk;
}

Extents broadcast_dims(const Extents& a, const Extents& b) {
  const std::size_t rank = std::max(a.size(), b.size());
  const Extents x = led_by_ones(a, rank, 1), y = led_by_ones(b, rank, 1);
  Extents dims(rank);
  for (std::size_t k = 0; k < rank; ++k) {
    check(x[k] == y[k] || x[k] == 1 || y[k] == 1, "the extents {} and {} do not go together", shape_text(a),
          shape_text(b));
    dims[k] = x[k] == 1 ? y[k] : x[k];
  }
  return dims;
}

Extents broadcast_strides(const Value& x, const Extents& dims) {
  check(x.dims.size() <= dims.size(), "the extents {} cannot be repeated to {}", shape_text(x.dims), shape_text(dims));
  const Extents from = led_by_ones(x.dims, dims.size(), 1);
  Extents strides = led_by_ones(x.strides, dims.size(), 0);
  for (std::size_t k = 0; k < dims.size(); ++k) {
    check(from[k] == dims[k] || from[k] == 1, "the extents {} cannot be repeated to {}", shape_text(x.dims),
          shape_text(dims));
    if (from[k] != dims[k]) strides[k] = 0;
  }
  return strides;
}

Value Compiler::rearranged(const Value& x, std::int64_t offset, const Extents& dims, const Extents& strides) {
  if (x.constant) {
    spend(element_count(dims, "its result", options_.largest_constant));
    return constant(std::make_shared<const OnnxArray>(copied(*x.constant, offset, dims, strides)));
  }
  const std::vector<int> order = memory_order(strides);
  Value y = computed(x.type, dims, order);
  CopyStep step;
  step.x = x.slot;
  step.y = y.slot;
  step.x_offset = offset;
  step.walk = make_walk(permuted(dims, order), permuted(strides, order), permuted(y.strides, order));
  add(step);
  return y;
}

Value Compiler::in_order(const Value& given, const std::vector<int>& order) {
  const Value x = on_device(given);
  if (has_order(x, order)) {
    Value same = x;
    same.strides = dense_strides(x.dims, order);
    return same;
  }
  Value y = computed(x.type, x.dims, order);
  CopyStep step;
  step.x = x.slot;
  step.y = y.slot;
  step.walk = make_walk(permuted(x.dims, order), permuted(x.strides, order), permuted(y.strides, order));
  add(step);
  return y;
}

Value Compiler::in_row_major(const Value& x) {
  return in_order(x, plain_order(x.dims.size()));
}

// Axes that are merged or split among each other must lie together in memory, in their order; the groups of such axes
// may lie in any order, and keep the one they have.
Value Compiler::reshaped(const Value& x, const Extents& dims) {
  check(element_count(dims, "its result") == x.numel(), "the extents {} cannot become {}", shape_text(x.dims),
        shape_text(dims));
  Value y = x;
  y.dims = dims;
  if (x.constant) {
    OnnxArray array = *x.constant;
    array.dims = dims;
    return constant(std::move(array));
  }
  y.strides = row_major_strides(dims);
  if (x.numel() == 0) return y;

  const std::vector<Group> groups = groups_of(x.dims, dims);
  const auto reach = [&](const Group& group) {
    std::int64_t largest = 0;
    for (std::size_t k = group.old_begin; k < group.old_end; ++k) {
      if (x.dims[k] > 1) largest = std::max(largest, x.strides[k]);
    }
    return largest;
  };
  std::vector<Group> sorted = groups;
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Group& a, const Group& b) { return reach(a) > reach(b); });
  std::vector<int> order, new_order;
  for (const Group& group : sorted) {
    for (std::size_t k = group.old_begin; k < group.old_end; ++k) order.push_back(static_cast<int>(k));
    for (std::size_t k = group.new_begin; k < group.new_end; ++k) new_order.push_back(static_cast<int>(k));
  }
  y.slot = in_order(x, order).slot;
  y.strides = dense_strides(dims, new_order);
  return y;
}

Value Compiler::blank(const Value& like, const Extents& dims, bool is_constant, const double* value) {
  if (is_constant) {
    element_count(dims, "its result", options_.largest_constant);
    return constant(make_array(like.type, dims, value != nullptr ? *value : 0));
  }
  Value y = computed(like.type, dims,
                     dims.size() == like.dims.size() ? memory_order(like.strides) : plain_order(dims.size()));
  add(BlankStep{y.slot, value != nullptr, value != nullptr ? *value : 0});
  return y;
}

void Compiler::place(Value& y, const Value& x, std::int64_t offset) {
  if (x.numel() == 0) return;
  if (y.constant) {
    // Made by blank() just now, and nobody else's.
    copy_into(*x.constant, const_cast<OnnxArray&>(*y.constant), offset, y.strides);
    return;
  }
  const Value source = on_device(x);
  const std::vector<int> order = memory_order(y.strides);
  CopyStep step;
  step.into = true;
  step.x = source.slot;
  step.y = y.slot;
  step.y_offset = offset;
  step.walk = make_walk(permuted(x.dims, order), permuted(source.strides, order), permuted(y.strides, order));
  add(step);
}

Value Compiler::unary(const Value& x, kernels::Unary kind, double alpha, double beta) {
  if (x.constant) return constant(onnx::unary(*x.constant, kind, alpha, beta));
  Value y = x;
  y.slot = computed(x.type, x.dims, memory_order(x.strides)).slot;
  add(UnaryStep{x.slot, y.slot, kind, alpha, beta});
  return y;
}

Value Compiler::activated(const Value& x, kernels::Activation act) {
  if (x.constant) {
    const double most = act == kernels::Activation::relu6 ? 6 : INFINITY;
    return constant(onnx::unary(*x.constant, kernels::Unary::clip, 0, most));
  }
  Value y = x;
  y.slot = computed(x.type, x.dims, memory_order(x.strides)).slot;
  add(ActivationStep{x.slot, y.slot, act});
  return y;
}

Value Compiler::scaled(const Value& x, double factor) {
  if (factor == 1) return x;
  Value y = x;
  y.slot = computed(x.type, x.dims, memory_order(x.strides)).slot;
  add(ScaleStep{x.slot, y.slot, factor});
  return y;
}

Value Compiler::binary(const Value& a, const Value& given, kernels::Binary kind) {
  // A power's exponent may be of another type.
  const bool converted =
      kind == kernels::Binary::power && given.constant && is_floating(a.type) && !is_floating(given.type);
  const Value b = converted ? constant(cast(*given.constant, OnnxType::f32)) : given;
  const Extents dims = broadcast_dims(a.dims, b.dims);
  const Extents a_strides = broadcast_strides(a, dims), b_strides = broadcast_strides(b, dims);
  if (a.constant && b.constant) {
    spend(element_count(dims, "its result", options_.largest_constant));
    return constant(
        std::make_shared<const OnnxArray>(onnx::binary(*a.constant, a_strides, *b.constant, b_strides, kind, dims)));
  }
  check(is_floating(a.type) && is_floating(b.type), "{} with {} numbers; computed numbers are floating ones here",
        name_of(a.type), name_of(b.type));
  // The result lies as the larger computed operand does.
  const bool as_a = !a.constant && (b.constant || a.numel() >= b.numel());
  const std::vector<int> order = memory_order(as_a ? a_strides : b_strides);
  Value y = computed(a.type, dims, order);
  add(BinaryStep{on_device(a).slot, on_device(b).slot, y.slot, kind,
                 make_walk(permuted(dims, order), permuted(a_strides, order), permuted(b_strides, order))});
  return y;
}

Value Compiler::mean(const Value& given, const std::vector<bool>& reduced) {
  Value x = on_device(given);
  const auto is_reduced = [&](int axis) { return reduced[static_cast<std::size_t>(axis)]; };
  const auto extent = [&](int axis) { return x.dims[static_cast<std::size_t>(axis)]; };
  check(x.numel() > 0, "a mean over extents {}", shape_text(x.dims));
  // The reduced axes must lie together: [outer, reduced, inner].
  std::vector<int> order = memory_order(x.strides), wide;
  std::copy_if(order.begin(), order.end(), std::back_inserter(wide), [&](int axis) { return extent(axis) > 1; });
  const auto first = std::find_if(wide.begin(), wide.end(), is_reduced);
  const auto last = std::find_if_not(first, wide.end(), is_reduced);
  if (std::any_of(last, wide.end(), is_reduced)) {
    std::stable_partition(order.begin(), order.end(), [&](int axis) { return !is_reduced(axis); });
    x = in_order(x, order);
  }
  std::int64_t outer = 1, count = 1, inner = 1;
  bool behind = false;
  Extents dims = x.dims;
  for (const int axis : order) {
    if (is_reduced(axis)) {
      count *= extent(axis);
      dims[static_cast<std::size_t>(axis)] = 1;
      behind = behind || extent(axis) > 1;
    } else {
      (behind ? inner : outer) *= extent(axis);
    }
  }
  if (count == 1) return x;
  Value y = computed(x.type, dims, order);
  add(MeanStep{x.slot, y.slot, {outer, count, 1, inner}});
  return y;
}

Value Compiler::padded(const Value& x, const Extents& before, const Extents& after, double value) {
  Extents dims = x.dims;
  for (std::size_t k = 0; k < dims.size(); ++k) dims[k] += before[k] + after[k];
  if (dims == x.dims) return x;
  Value y = blank(x, dims, x.constant != nullptr, &value);
  std::int64_t offset = 0;
  for (std::size_t k = 0; k < dims.size(); ++k) offset += before[k] * y.strides[k];
  place(y, x, offset);
  return y;
}

}  // namespace retort::onnx
