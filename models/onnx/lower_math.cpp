// Elementwise operators, reductions, softmax and matrix products.
#include <algorithm>
#include <cmath>

#include "engine/weight_file.h"
#include "models/onnx/compiler.h"

namespace retort::onnx {
namespace {

using kernels::Activation;
using kernels::Binary;
using kernels::Unary;

constexpr std::size_t kMostProducts = 4096;  // of one MatMul

template <Unary kind>
void plain_unary(Compiler& c, const OnnxNode& node) {
  c.define(node, c.unary(c.input(node, 0), kind));
}

// Sigmoid and HardSigmoid, which a product with their own input makes SiLU and hard swish.
void gate(Compiler& c, const OnnxNode& node, Unary kind, double alpha, double beta, Unary with_product) {
  const Value& x = c.input(node, 0);
  const OnnxNode* product = c.sole_consumer(node.outputs[0]);
  if (product != nullptr && product->op == "Mul" && !x.constant &&
      std::count(product->inputs.begin(), product->inputs.end(), node.inputs[0]) == 1) {
    c.define(*product, c.unary(x, with_product));
    c.absorb(*product);
    return;
  }
  c.define(node, c.unary(x, kind, alpha, beta));
}

void sigmoid(Compiler& c, const OnnxNode& node) {
  gate(c, node, Unary::sigmoid, 0, 0, Unary::silu);
}

void hard_sigmoid(Compiler& c, const OnnxNode& node) {
  const double alpha = c.real(node, "alpha", 0.2), beta = c.real(node, "beta", 0.5);
  // As hard swish has them; alpha is rounded to f32 in a file.
  if (std::abs(alpha - 1.0 / 6) < 1e-7 && beta == 0.5) {
    gate(c, node, Unary::hard_sigmoid, alpha, beta, Unary::hard_swish);
  } else {
    c.define(node, c.unary(c.input(node, 0), Unary::hard_sigmoid, alpha, beta));
  }
}

void leaky_relu(Compiler& c, const OnnxNode& node) {
  c.define(node, c.unary(c.input(node, 0), Unary::leaky_relu, c.real(node, "alpha", 0.01)));
}

void relu(Compiler& c, const OnnxNode& node) {
  c.define(node, c.activated(c.input(node, 0), Activation::relu));
}

void clip(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const auto [least, most] = clip_bounds(c, node);
  if (least == -INFINITY && most == INFINITY) {
    c.define(node, x);
  } else if (least == 0 && (most == 6 || most == INFINITY)) {
    c.define(node, c.activated(x, most == 6 ? Activation::relu6 : Activation::relu));
  } else {
    c.define(node, c.unary(x, Unary::clip, least, most));
  }
}

void prelu(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  const Value& slope = c.input(node, 1);
  check(broadcast_dims(x.dims, slope.dims) == x.dims, "a slope of extents {} for {}", shape_text(slope.dims),
        shape_text(x.dims));
  const Value below = c.unary(x, Unary::clip, -INFINITY, 0);
  c.define(node, c.binary(c.activated(x, Activation::relu), c.binary(below, slope, Binary::multiply), Binary::add));
}

// Two inputs, or any number of them.
template <Binary kind>
void plain_binary(Compiler& c, const OnnxNode& node) {
  Value y = c.input(node, 0);
  for (std::size_t k = 1; k < node.inputs.size(); ++k) y = c.binary(y, c.input(node, k), kind);
  c.define(node, y);
}

// Of x, which the node's axes belong to.
Value reduction(Compiler& c, const OnnxNode& node, const Value& x, bool mean) {
  const Extents* axes = c.integers(node, "axes", 1);
  const bool none = axes == nullptr || axes->empty();
  if (none && c.integer(node, "noop_with_empty_axes", 0) != 0) return x;
  std::vector<bool> reduced(x.dims.size(), none);
  if (!none) {
    for (const std::int64_t axis : *axes) reduced[c.axis(axis, x.dims.size())] = true;
  }
  Extents kept;
  std::int64_t count = 1;
  for (std::size_t k = 0; k < x.dims.size(); ++k) {
    if (reduced[k]) count *= x.dims[k];
    if (!reduced[k] || c.integer(node, "keepdims", 1) != 0) kept.push_back(reduced[k] ? 1 : x.dims[k]);
  }
  Value y;
  if (x.constant) {
    y = c.constant(onnx::reduced(*x.constant, reduced, mean));
  } else {
    y = c.mean(x, reduced);
    if (!mean) y = c.scaled(y, static_cast<double>(count));
  }
  return c.reshaped(y, kept);
}

void reduce_mean(Compiler& c, const OnnxNode& node) {
  c.define(node, reduction(c, node, c.input(node, 0), true));
}
void reduce_sum(Compiler& c, const OnnxNode& node) {
  c.define(node, reduction(c, node, c.input(node, 0), false));
}
void reduce_l1(Compiler& c, const OnnxNode& node) {
  c.define(node, reduction(c, node, c.unary(c.input(node, 0), Unary::absolute), false));
}
Value sum_of_squares(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  return reduction(c, node, c.binary(x, x, Binary::multiply), false);
}
void reduce_sum_square(Compiler& c, const OnnxNode& node) {
  c.define(node, sum_of_squares(c, node));
}
void reduce_l2(Compiler& c, const OnnxNode& node) {
  c.define(node, c.unary(sum_of_squares(c, node), Unary::sqrt));
}

// Over one axis; before opset 13 over all axes from that one on.
void softmax(Compiler& c, const OnnxNode& node, bool log) {
  const Value x = c.on_device(c.input(node, 0));
  const bool single = c.opset() >= 13;
  const std::size_t axis = c.axis(c.integer(node, "axis", single ? -1 : 1), x.dims.size());
  std::vector<int> order = memory_order(x.strides);
  const auto outside = [&](int k) { return single ? k != static_cast<int>(axis) : k < static_cast<int>(axis); };
  std::stable_partition(order.begin(), order.end(), outside);
  const Value in = c.in_order(x, order);
  std::int64_t columns = 1;
  for (std::size_t k = 0; k < x.dims.size(); ++k) {
    if (!outside(static_cast<int>(k))) columns *= x.dims[k];
  }
  check(columns > 0, "over an axis without elements");
  const Value y = c.computed(x.type, x.dims, order);
  c.add(SoftmaxStep{log, in.slot, y.slot, {x.numel() / columns, columns}});
  c.define(node, y);
}

void plain_softmax(Compiler& c, const OnnxNode& node) {
  softmax(c, node, false);
}
void log_softmax(Compiler& c, const OnnxNode& node) {
  softmax(c, node, true);
}

// A matrix as it lies in memory: `shape` is the one there, transposed where the axes lie the other way round.
struct Matrix {
  int slot;
  Shape shape;
  bool transposed;
};

Matrix matrix_of(Compiler& c, const Value& given) {
  const Value x = c.on_device(given);
  if (!has_order(x, {0, 1}) && has_order(x, {1, 0})) return {x.slot, {x.dims[1], x.dims[0]}, true};
  return {c.in_row_major(x).slot, {x.dims[0], x.dims[1]}, false};
}

void check_product(const Extents& a, const Extents& b, std::int64_t ka, std::int64_t kb) {
  check(ka == kb && ka > 0, "a product of {} and {}", shape_text(a), shape_text(b));
}

void gemm(Compiler& c, const OnnxNode& node) {
  const Value &a = c.input(node, 0), &b = c.input(node, 1);
  check(a.dims.size() == 2 && b.dims.size() == 2, "a product of {} and {}", shape_text(a.dims), shape_text(b.dims));
  const bool ta = c.integer(node, "transA", 0) != 0, tb = c.integer(node, "transB", 0) != 0;
  const double alpha = c.real(node, "alpha", 1), beta = c.real(node, "beta", 1);
  const std::int64_t m = a.dims[ta ? 1 : 0], n = b.dims[tb ? 0 : 1];
  check_product(a.dims, b.dims, a.dims[ta ? 0 : 1], b.dims[tb ? 1 : 0]);
  const Matrix left = matrix_of(c, a), right = matrix_of(c, b);
  Value y = c.computed(a.type, {m, n}, {0, 1});
  MatmulStep step{left.slot,  right.slot,  -1,     y.slot,  ta != left.transposed, tb != right.transposed,
                  left.shape, right.shape, {m, n}, {{0, 0}}};
  const Value* addend = c.has_input(node, 2) && beta != 0 ? &c.input(node, 2) : nullptr;
  const bool is_bias = addend != nullptr && addend->constant && alpha == 1 && !addend->dims.empty() &&
                       addend->numel() == n && addend->dims.back() == n;
  if (is_bias) {
    const OnnxConstant source = addend->constant;
    const OnnxConstant bias = beta == 1 ? source : c.derive({source}, fmt::format("scaled {}", beta), [&] {
      OnnxArray scaled = *source;
      for (float& v : scaled.floats) v = static_cast<float>(v * beta);
      return scaled;
    });
    step.bias = c.constant_slot(bias, true);
    addend = nullptr;
  }
  c.add(step);
  y = c.scaled(y, alpha);
  if (addend != nullptr) {
    check(broadcast_dims(addend->dims, y.dims) == y.dims, "an addend of extents {} for {}", shape_text(addend->dims),
          shape_text(y.dims));
    y = c.binary(y, c.scaled(c.on_device(*addend), beta), Binary::add);
  }
  c.define(node, y);
}

void matmul(Compiler& c, const OnnxNode& node) {
  const auto with_matrix = [&](const Value& x, std::size_t position) {
    check(!x.dims.empty(), "a product with a scalar");
    if (x.dims.size() > 1) return x;
    return c.reshaped(x, position == 0 ? Extents{1, x.dims[0]} : Extents{x.dims[0], 1});
  };
  const Value a = with_matrix(c.input(node, 0), 0), b = with_matrix(c.input(node, 1), 1);
  const std::size_t ra = a.dims.size(), rb = b.dims.size();
  const std::int64_t m = a.dims[ra - 2], k = a.dims[ra - 1], n = b.dims[rb - 1];
  check_product(a.dims, b.dims, k, b.dims[rb - 2]);
  const Extents batch_a(a.dims.begin(), a.dims.end() - 2), batch_b(b.dims.begin(), b.dims.end() - 2);
  Extents dims = broadcast_dims(batch_a, batch_b);
  const Extents batch = dims;
  dims.push_back(m);
  dims.push_back(n);
  Value y;
  MatmulStep step;
  if (rb == 2) {  // one product with all rows of a
    const Value rows = ra == 2 ? a : c.reshaped(a, {a.numel() / k, k});
    const Matrix left = matrix_of(c, rows), right = matrix_of(c, b);
    y = c.computed(a.type, {rows.dims[0], n}, {0, 1});
    step = {left.slot,   right.slot,        -1,      y.slot, left.transposed, right.transposed, left.shape,
            right.shape, {rows.dims[0], n}, {{0, 0}}};
  } else {
    const Value left = c.in_row_major(a), right = c.in_row_major(b);
    y = c.computed(a.type, dims, plain_order(dims.size()));
    step = {left.slot, right.slot, -1, y.slot, false, false, {m, k}, {k, n}, {m, n}, {}};
    const std::int64_t count = element_count(batch, "its result", kMostProducts);
    Value matrices_a = left, matrices_b = right;
    matrices_a.dims = batch_a;
    matrices_b.dims = batch_b;
    matrices_a.strides.resize(batch_a.size());
    matrices_b.strides.resize(batch_b.size());
    const Extents sa = broadcast_strides(matrices_a, batch), sb = broadcast_strides(matrices_b, batch);
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t rest = i, at_a = 0, at_b = 0;
      for (std::size_t axis = batch.size(); axis-- > 0;) {
        at_a += rest % batch[axis] * sa[axis];
        at_b += rest % batch[axis] * sb[axis];
        rest /= batch[axis];
      }
      step.offsets.emplace_back(at_a, at_b);
    }
  }
  c.add(step);
  if (c.input(node, 0).dims.size() == 1) dims.erase(dims.end() - 2);
  if (c.input(node, 1).dims.size() == 1) dims.pop_back();
  c.define(node, c.reshaped(y, dims));
}

}  // namespace

std::pair<double, double> clip_bounds(const Compiler& c, const OnnxNode& node) {
  const auto bound = [&](const char* name, std::size_t k, double fallback) {
    if (!c.has_input(node, k)) return c.real(node, name, fallback);
    const Value& value = c.input(node, k);
    check(value.constant && value.numel() == 1, "its bound {} must be one constant number", name);
    return value.constant->number(0);
  };
  return {bound("min", 1, -INFINITY), bound("max", 2, INFINITY)};
}

void add_math_lowerings(Lowerings& to) {
  to.insert({{"Abs", plain_unary<Unary::absolute>},
             {"Erf", plain_unary<Unary::erf>},
             {"Exp", plain_unary<Unary::exp>},
             {"Floor", plain_unary<Unary::floor>},
             {"HardSwish", plain_unary<Unary::hard_swish>},
             {"Log", plain_unary<Unary::log>},
             {"Neg", plain_unary<Unary::negative>},
             {"Reciprocal", plain_unary<Unary::reciprocal>},
             {"Sqrt", plain_unary<Unary::sqrt>},
             {"Tanh", plain_unary<Unary::tanh>},
             {"Sigmoid", sigmoid},
             {"HardSigmoid", hard_sigmoid},
             {"LeakyRelu", leaky_relu},
             {"Relu", relu},
             {"Clip", clip},
             {"PRelu", prelu},
             {"Add", plain_binary<Binary::add>},
             {"Sub", plain_binary<Binary::subtract>},
             {"Mul", plain_binary<Binary::multiply>},
             {"Div", plain_binary<Binary::divide>},
             {"Pow", plain_binary<Binary::power>},
             {"Min", plain_binary<Binary::minimum>},
             {"Max", plain_binary<Binary::maximum>},
             {"Sum", plain_binary<Binary::add>},
             {"ReduceL1", reduce_l1},
             {"ReduceL2", reduce_l2},
             {"ReduceMean", reduce_mean},
             {"ReduceSum", reduce_sum},
             {"ReduceSumSquare", reduce_sum_square},
             {"Softmax", plain_softmax},
             {"LogSoftmax", log_softmax},
             {"Gemm", gemm},
             {"MatMul", matmul}});
}

}  // namespace retort::onnx
