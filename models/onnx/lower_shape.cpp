// Operators that move, rename or choose elements, and those that make constants.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "models/onnx/compiler.h"

namespace retort::onnx {
namespace {

constexpr std::int64_t kMostPieces = 4096;  // that a Gather is put together from

std::int64_t product(const Extents& dims, std::size_t begin, std::size_t end) {
  return element_count(
      Extents(dims.begin() + static_cast<std::ptrdiff_t>(begin), dims.begin() + static_cast<std::ptrdiff_t>(end)),
      "its result");
}

void reshape(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const Extents* wanted = c.integers(node, "shape", 1);
  check(wanted != nullptr, "lacks its shape");
  const bool zero_is_zero = c.integer(node, "allowzero", 0) != 0;
  Extents dims = *wanted;
  std::ptrdiff_t open = -1;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    if (dims[k] == -1) {
      check(open < 0, "the shape {} leaves more than one extent open", shape_text(*wanted));
      open = static_cast<std::ptrdiff_t>(k);
      dims[k] = 1;
    } else if (dims[k] == 0 && !zero_is_zero) {
      check(k < x.dims.size(), "the shape {} for {}", shape_text(*wanted), shape_text(x.dims));
      dims[k] = x.dims[k];
    }
  }
  const std::int64_t known = element_count(dims, "its shape");
  if (open >= 0) {
    check(known > 0 && x.numel() % known == 0, "the extents {} cannot become {}", shape_text(x.dims),
          shape_text(*wanted));
    dims[static_cast<std::size_t>(open)] = x.numel() / known;
  }
  c.define(node, c.reshaped(x, dims));
}

void flatten(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const std::int64_t given = c.integer(node, "axis", 1);
  const auto rank = static_cast<std::int64_t>(x.dims.size());
  const std::size_t axis = given == rank ? x.dims.size() : c.axis(given, x.dims.size());
  c.define(node, c.reshaped(x, {product(x.dims, 0, axis), product(x.dims, axis, x.dims.size())}));
}

void squeeze(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const Extents* axes = c.integers(node, "axes", 1);
  std::vector<bool> gone(x.dims.size(), false);
  if (axes == nullptr) {
    for (std::size_t k = 0; k < x.dims.size(); ++k) gone[k] = x.dims[k] == 1;
  } else {
    for (const std::int64_t given : *axes) {
      const std::size_t axis = c.axis(given, x.dims.size());
      check(x.dims[axis] == 1, "axis {} of {} cannot go", given, shape_text(x.dims));
      gone[axis] = true;
    }
  }
  Extents dims;
  for (std::size_t k = 0; k < x.dims.size(); ++k) {
    if (!gone[k]) dims.push_back(x.dims[k]);
  }
  c.define(node, c.reshaped(x, dims));
}

void unsqueeze(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const Extents* axes = c.integers(node, "axes", 1);
  check(axes != nullptr, "lacks its axes");
  check(axes->size() < 64, "{} new axes", axes->size());
  std::vector<bool> fresh(x.dims.size() + axes->size(), false);
  for (const std::int64_t given : *axes) {
    const std::size_t axis = c.axis(given, fresh.size());
    check(!fresh[axis], "axis {} is named twice", given);
    fresh[axis] = true;
  }
  Extents dims;
  auto from = x.dims.begin();
  for (const bool is_new : fresh) dims.push_back(is_new ? 1 : *from++);
  c.define(node, c.reshaped(x, dims));
}

void transpose(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const std::size_t rank = x.dims.size();
  Extents order(rank);
  for (std::size_t k = 0; k < rank; ++k) order[k] = static_cast<std::int64_t>(rank - 1 - k);
  if (const Extents* given = c.integers(node, "perm")) order = *given;
  std::vector<bool> seen(rank, false);
  Value y = x;
  check(order.size() == rank, "perm {} for {}", shape_text(order), shape_text(x.dims));
  for (std::size_t k = 0; k < rank; ++k) {
    const auto from = static_cast<std::size_t>(order[k]);
    check(from < rank && !seen[from], "perm {} for {}", shape_text(order), shape_text(x.dims));
    seen[from] = true;
    y.dims[k] = x.dims[from];
    y.strides[k] = x.strides[from];
  }
  c.define(node, x.constant ? c.rearranged(x, 0, y.dims, y.strides) : y);
}

// x[.., begin, begin + step, .. (count of them), ..] along one axis.
Value sliced(Compiler& c, const Value& x, std::size_t axis, std::int64_t begin, std::int64_t count, std::int64_t step) {
  if (begin == 0 && step == 1 && count == x.dims[axis]) return x;
  Extents dims = x.dims, strides = x.strides;
  const std::int64_t offset = count == 0 ? 0 : begin * strides[axis];
  dims[axis] = count;
  strides[axis] *= step;
  return c.rearranged(x, offset, dims, strides);
}

void slice(Compiler& c, const OnnxNode& node) {
  const Extents* starts = c.integers(node, "starts", 1);
  const Extents* ends = c.integers(node, "ends", 2);
  const Extents* axes = c.integers(node, "axes", 3);
  const Extents* steps = c.has_input(node, 4) ? c.integers(node, "steps", 4) : nullptr;
  check(starts != nullptr && ends != nullptr && starts->size() == ends->size() &&
            (axes == nullptr || axes->size() == starts->size()) &&
            (steps == nullptr || steps->size() == starts->size()),
        "its starts, ends, axes and steps do not go together");
  Value x = c.input(node, 0);
  for (std::size_t k = 0; k < starts->size(); ++k) {
    const std::size_t axis = c.axis(axes != nullptr ? (*axes)[k] : static_cast<std::int64_t>(k), x.dims.size());
    const std::int64_t extent = x.dims[axis];
    const std::int64_t limit = std::max<std::int64_t>(1, extent);
    const std::int64_t step = std::clamp(steps != nullptr ? (*steps)[k] : 1, -limit, limit);
    check(step != 0, "a step of 0");
    const auto place = [&](std::int64_t at) {
      if (at < 0) at += extent;
      return step > 0 ? std::clamp<std::int64_t>(at, 0, extent) : std::clamp<std::int64_t>(at, -1, extent - 1);
    };
    const std::int64_t begin = place((*starts)[k]), end = place((*ends)[k]);
    const std::int64_t distance = step > 0 ? end - begin : begin - end, size = std::abs(step);
    x = sliced(c, x, axis, begin, distance <= 0 ? 0 : (distance + size - 1) / size, step);
  }
  c.define(node, x);
}

void split(Compiler& c, const OnnxNode& node) {
  const Value x = c.input(node, 0);
  const std::size_t axis = c.axis(c.integer(node, "axis", 0), x.dims.size());
  const auto pieces = static_cast<std::int64_t>(node.outputs.size());
  Extents sizes;
  if (const Extents* given = c.integers(node, "split", 1)) {
    sizes = *given;
  } else {
    const std::int64_t asked = c.integer(node, "num_outputs", pieces);
    check(asked == pieces, "num_outputs is {} and there are {} outputs", asked, pieces);
    const std::int64_t size = (x.dims[axis] + pieces - 1) / pieces;
    for (std::int64_t left = x.dims[axis]; static_cast<std::int64_t>(sizes.size()) < pieces; left -= sizes.back()) {
      sizes.push_back(std::min(size, left));
    }
  }
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) {
    check(size >= 0 && size <= x.dims[axis], "pieces {} of an axis of {}", shape_text(sizes), x.dims[axis]);
    total += size;
  }
  check(static_cast<std::int64_t>(sizes.size()) == pieces && total == x.dims[axis],
        "pieces {} of an axis of {} for {} outputs", shape_text(sizes), x.dims[axis], pieces);
  std::int64_t begin = 0;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    c.define(node.outputs[k], sliced(c, x, axis, begin, sizes[k], 1));
    begin += sizes[k];
  }
}

void concat(Compiler& c, const OnnxNode& node) {
  std::vector<Value> inputs;
  bool constant = true;
  for (std::size_t k = 0; k < node.inputs.size(); ++k) {
    inputs.push_back(c.input(node, k));
    constant = constant && inputs.back().constant;
  }
  const Value& like =
      *std::find_if(inputs.begin(), inputs.end(), [&](const Value& v) { return constant || !v.constant; });
  check(node.attributes.count("axis") != 0, "lacks its axis");
  const std::size_t axis = c.axis(c.integer(node, "axis", 0), like.dims.size());
  Extents dims = like.dims;
  dims[axis] = 0;
  for (const Value& x : inputs) {
    Extents others = x.dims;
    check(others.size() == dims.size(), "the extents {} and {} do not go together", shape_text(x.dims),
          shape_text(like.dims));
    others[axis] = dims[axis];
    check(others == dims, "the extents {} and {} do not go together", shape_text(x.dims), shape_text(like.dims));
    dims[axis] += x.dims[axis];
  }
  Value y = c.blank(like, dims, constant);
  std::int64_t offset = 0;
  for (const Value& x : inputs) {
    c.place(y, x, offset);
    offset += x.dims[axis] * y.strides[axis];
  }
  c.define(node, y);
}

void gather(Compiler& c, const OnnxNode& node) {
  const Value x = c.input(node, 0);
  const Value& chosen = c.input(node, 1);
  check(!is_floating(chosen.type), "its indices are {} numbers", name_of(chosen.type));
  const std::size_t axis = c.axis(c.integer(node, "axis", 0), x.dims.size());
  Extents indices = chosen.constant->integers;
  for (std::int64_t& index : indices) {
    check(index >= -x.dims[axis] && index < x.dims[axis], "index {} into an axis of {}", index, x.dims[axis]);
    if (index < 0) index += x.dims[axis];
  }
  Extents dims(x.dims.begin(), x.dims.begin() + static_cast<std::ptrdiff_t>(axis));
  dims.insert(dims.end(), chosen.dims.begin(), chosen.dims.end());
  dims.insert(dims.end(), x.dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.dims.end());
  const auto count = static_cast<std::int64_t>(indices.size());
  const std::int64_t step = count > 1 ? indices[1] - indices[0] : 1;
  bool even = step != 0;
  for (std::size_t k = 1; k < indices.size(); ++k) even = even && indices[k] - indices[k - 1] == step;
  if (even) {
    c.define(node, c.reshaped(sliced(c, x, axis, count > 0 ? indices[0] : 0, count, step), dims));
    return;
  }
  check(count <= kMostPieces, "{} indices, of which at most {} are read", count, kMostPieces);
  Extents flat = x.dims;
  flat[axis] = count;
  Value y = c.blank(x, flat, x.constant != nullptr);
  for (std::size_t k = 0; k < indices.size(); ++k) {
    c.place(y, sliced(c, x, axis, indices[k], 1, 1), static_cast<std::int64_t>(k) * y.strides[axis]);
  }
  c.define(node, c.reshaped(y, dims));
}

void pad(Compiler& c, const OnnxNode& node) {
  Value x = c.input(node, 0);
  const std::string mode = c.text(node, "mode", "constant");
  check(mode == "constant", "mode {}; only \"constant\" is read", in_quotes(mode));
  const Extents* pads = c.integers(node, "pads", 1);
  check(pads != nullptr, "lacks its pads");
  double value = c.real(node, "value", 0);
  if (c.has_input(node, 2)) {
    const Value& given = c.input(node, 2);
    check(given.numel() == 1, "a value of extents {}", shape_text(given.dims));
    value = given.constant->number(0);
  }
  std::vector<std::size_t> axes(x.dims.size());
  std::iota(axes.begin(), axes.end(), std::size_t{0});
  if (c.has_input(node, 3)) {
    axes.clear();
    for (const std::int64_t axis : *c.integers(node, "axes", 3)) axes.push_back(c.axis(axis, x.dims.size()));
  }
  check(pads->size() == 2 * axes.size(), "{} pads for {} axes", pads->size(), axes.size());
  Extents before(x.dims.size(), 0), after(x.dims.size(), 0);
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  for (std::size_t k = 0; k < axes.size(); ++k) {
    const std::int64_t first = (*pads)[k], last = (*pads)[k + axes.size()];
    check(std::max(first, last) < kMost && std::min(first, last) > -kMost, "pads {}", shape_text(*pads));
    // Negative ones cut off.
    const std::int64_t left = x.dims[axes[k]] + std::min<std::int64_t>(0, first) + std::min<std::int64_t>(0, last);
    check(left >= 0, "pads {} for {}", shape_text(*pads), shape_text(x.dims));
    x = sliced(c, x, axes[k], std::max<std::int64_t>(0, -first), left, 1);
    before[axes[k]] = std::max<std::int64_t>(0, first);
    after[axes[k]] = std::max<std::int64_t>(0, last);
  }
  c.define(node, c.padded(x, before, after, value));
}

void expand(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const Extents* shape = c.integers(node, "shape", 1);
  check(shape != nullptr, "lacks its shape");
  const Extents dims = broadcast_dims(x.dims, *shape);
  c.define(node, dims == x.dims ? x : c.rearranged(x, 0, dims, broadcast_strides(x, dims)));
}

void shape(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const auto rank = static_cast<std::int64_t>(x.dims.size());
  const auto place = [&](std::int64_t at) { return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank); };
  const std::int64_t begin = place(c.integer(node, "start", 0)), end = place(c.integer(node, "end", rank));
  OnnxArray y;
  y.type = OnnxType::i64;
  for (std::int64_t k = begin; k < end; ++k) y.integers.push_back(x.dims[static_cast<std::size_t>(k)]);
  y.dims = {static_cast<std::int64_t>(y.integers.size())};
  c.define(node, c.constant(std::move(y)));
}

void constant(Compiler& c, const OnnxNode& node) {
  check(node.attributes.size() == 1, "has {} values", node.attributes.size());
  const OnnxAttribute& a = node.attributes.begin()->second;
  OnnxArray y;
  switch (a.kind) {
    case OnnxAttribute::Kind::array:
      c.define(node, c.constant(a.array));
      return;
    case OnnxAttribute::Kind::real:
      y = make_array(OnnxType::f32, {}, a.real);
      break;
    case OnnxAttribute::Kind::integer:
      y = make_array(OnnxType::i64, {});
      y.integers = {a.integer};
      break;
    case OnnxAttribute::Kind::reals:
      y = make_array(OnnxType::f32, {static_cast<std::int64_t>(a.reals.size())});
      std::transform(a.reals.begin(), a.reals.end(), y.floats.begin(), [](double v) { return static_cast<float>(v); });
      break;
    case OnnxAttribute::Kind::integers:
      y = make_array(OnnxType::i64, {static_cast<std::int64_t>(a.integers.size())});
      y.integers = a.integers;
      break;
    default:
      fail("its value is no number");
  }
  c.define(node, c.constant(std::move(y)));
}

void constant_of_shape(Compiler& c, const OnnxNode& node) {
  const Extents* dims = c.integers(node, "shape", 0);
  check(dims != nullptr, "lacks its shape");
  element_count(*dims, "its result", c.options().largest_constant);
  OnnxType type = OnnxType::f32;
  double value = 0;
  if (const auto given = node.attributes.find("value"); given != node.attributes.end()) {
    const OnnxConstant& array = given->second.array;
    check(array && array->numel() == 1, "its value is not one number");
    type = array->type;
    value = array->number(0);
  }
  c.define(node, c.constant(make_array(type, *dims, value)));
}

void range(Compiler& c, const OnnxNode& node) {
  const auto number = [&](std::size_t k) {
    const Value& value = c.input(node, k);
    check(value.numel() == 1, "an input of extents {}", shape_text(value.dims));
    return value.constant->number(0);
  };
  const double start = number(0), limit = number(1), step = number(2);
  constexpr double kExact = 1LL << 53;
  check(std::abs(start) < kExact && std::abs(limit) < kExact, "from {} to {}", start, limit);
  const double count = std::max(0.0, std::ceil((limit - start) / step));
  check(count <= static_cast<double>(c.options().largest_constant), "from {} to {} by {}", start, limit, step);
  OnnxArray y = make_array(c.input(node, 0).type, {static_cast<std::int64_t>(count)});
  for (std::size_t k = 0; k < static_cast<std::size_t>(y.numel()); ++k) {
    const double value = start + static_cast<double>(k) * step;
    if (is_floating(y.type)) {
      y.floats[k] = static_cast<float>(value);
    } else {
      y.integers[k] = static_cast<std::int64_t>(value);
    }
  }
  c.define(node, c.constant(std::move(y)));
}

void identity(Compiler& c, const OnnxNode& node) {
  c.define(node, c.input(node, 0));
}

void dropout(Compiler& c, const OnnxNode& node) {
  if (c.has_input(node, 2)) {
    const OnnxConstant& training = c.input(node, 2).constant;
    check(training->numel() == 1 && training->number(0) == 0, "is in training mode");
  }
  identity(c, node);
}

void cast(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  // ONNX's numbers for the types (TensorProto.DataType).
  static const std::map<std::int64_t, OnnxType> kTypes = {
      {1, OnnxType::f32},  {2, OnnxType::u8},   {3, OnnxType::i8},      {4, OnnxType::u16},  {5, OnnxType::i16},
      {6, OnnxType::i32},  {7, OnnxType::i64},  {9, OnnxType::boolean}, {10, OnnxType::f16}, {11, OnnxType::f64},
      {12, OnnxType::u32}, {13, OnnxType::u64}, {16, OnnxType::bf16}};
  const std::int64_t number = c.integer(node, "to", 0);
  const auto type = kTypes.find(number);
  check(type != kTypes.end(), "to ONNX's data type {}, which is not read", number);
  if (x.constant) {
    c.define(node, c.constant(onnx::cast(*x.constant, type->second)));
    return;
  }
  check(is_floating(type->second), "computed numbers to {}; they stay floating ones here", name_of(type->second));
  Value y = x;
  y.type = type->second;
  c.define(node, y);
}

}  // namespace

void add_shape_lowerings(Lowerings& to) {
  to.insert({{"Reshape", reshape},
             {"Flatten", flatten},
             {"Squeeze", squeeze},
             {"Unsqueeze", unsqueeze},
             {"Transpose", transpose},
             {"Slice", slice},
             {"Split", split},
             {"Concat", concat},
             {"Gather", gather},
             {"Pad", pad},
             {"Expand", expand},
             {"Range", range},
             {"Shape", shape},
             {"Constant", constant},
             {"ConstantOfShape", constant_of_shape},
             {"Identity", identity},
             {"Dropout", dropout},
             {"Cast", cast}});
}

}  // namespace retort::onnx
