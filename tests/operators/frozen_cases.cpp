// The rows of the operator table for networks that are only run. The references broadcast and move by indices into
// shapes, as the operators of other frameworks are defined; that a walk says the same is what is tested.
#include <algorithm>
#include <cmath>

#include "engine/ops.h"
#include "tests/operators/operator_table.h"

namespace retort::testing {
namespace {

using kernels::Binary;
using kernels::Unary;

// --- y = f(x)

struct UnaryRow {
  const char* name;
  Unary kind;
  double (*f)(double);
  double alpha = 0, beta = 0;
  bool positive = false;
};

void add_unary(std::vector<OperatorCase>& rows) {
  const std::vector<UnaryRow> all{
      {"leaky_relu", Unary::leaky_relu, [](double v) { return v < 0 ? 0.1 * v : v; }, 0.1},
      {"clip", Unary::clip, [](double v) { return std::min(std::max(v, -0.5), 1.5); }, -0.5, 1.5},
      {"sigmoid", Unary::sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); }},
      {"hard_sigmoid", Unary::hard_sigmoid, [](double v) { return std::clamp(0.2 * v + 0.5, 0.0, 1.0); }, 0.2, 0.5},
      {"hard_swish", Unary::hard_swish, [](double v) { return v * std::clamp(v + 3, 0.0, 6.0) / 6; }},
      {"silu", Unary::silu, [](double v) { return v / (1 + std::exp(-v)); }},
      {"tanh", Unary::tanh, [](double v) { return 1 - 2 / (std::exp(2 * v) + 1); }},
      {"erf", Unary::erf, [](double v) { return 1 - std::erfc(v); }},
      {"exp", Unary::exp, [](double v) { return std::exp(v); }},
      {"log", Unary::log, [](double v) { return std::log(v); }, 0, 0, true},
      {"sqrt", Unary::sqrt, [](double v) { return std::pow(v, 0.5); }, 0, 0, true},
      {"reciprocal", Unary::reciprocal, [](double v) { return 1 / v; }, 0, 0, true},
      {"absolute", Unary::absolute, [](double v) { return v < 0 ? -v : v; }},
      {"negative", Unary::negative, [](double v) { return 0 - v; }},
      {"floor", Unary::floor, [](double v) { return -std::ceil(-v); }}};
  for (const UnaryRow& row : all) {
    Input input = normal({3, 5, 7, 11}, 3.0);
    if (row.positive) input.kind = Input::Kind::positive;
    rows.push_back({.name = std::string("unary_") + row.name,
                    .inputs = {input},
                    .apply = [row](const Tensors& in) { return unary(in[0], row.kind, row.alpha, row.beta); },
                    .expected =
                        [row](const Arrays& in) {
                          Array y = in[0];
                          for (double& v : y.values) v = row.f(v);
                          return y;
                        },
                    .has_backward = false});
  }
}

// --- y = f(a, b), broadcast as in NumPy: shapes of equal rank, extents equal or 1.

std::int64_t stride_of(const Shape& shape, int axis) {
  std::int64_t stride = 1;
  for (int k = axis + 1; k < shape.rank(); ++k) stride *= shape[k];
  return stride;
}

Walk broadcast(const Shape& a, const Shape& b, const Shape& y) {
  Walk walk;
  walk.rank = y.rank();
  for (int k = 0; k < y.rank(); ++k) {
    const auto i = static_cast<std::size_t>(k);
    walk.extents[i] = y[k];
    walk.a[i] = a[k] == 1 ? 0 : stride_of(a, k);
    walk.b[i] = b[k] == 1 ? 0 : stride_of(b, k);
  }
  return walk;
}

double element(const Array& x, const std::vector<std::int64_t>& index) {
  std::int64_t at = 0;
  for (int k = 0; k < x.shape.rank(); ++k) {
    at = at * x.shape[k] + (x.shape[k] == 1 ? 0 : index[static_cast<std::size_t>(k)]);
  }
  return x[at];
}

// Calls f(index) for all indices of a shape, in row-major order.
template <typename F>
void for_each_index(const Shape& shape, const F& f) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.rank()), 0);
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    std::int64_t rest = i;
    for (int k = shape.rank() - 1; k >= 0; --k) {
      index[static_cast<std::size_t>(k)] = rest % shape[k];
      rest /= shape[k];
    }
    f(index);
  }
}

struct BinaryRow {
  const char* name;
  Binary kind;
  double (*f)(double, double);
  bool positive_a = false, positive_b = false;
};

void add_binary(std::vector<OperatorCase>& rows, const BinaryRow& row, const char* how, const Shape& a,
                const Shape& b) {
  Shape y = a;
  for (int k = 0; k < y.rank(); ++k) y[k] = std::max(a[k], b[k]);
  const auto kind_of = [](bool positive) { return positive ? Input::Kind::positive : Input::Kind::normal; };
  rows.push_back(
      {.name = std::string("binary_") + row.name + "_" + how,
       .inputs = {{.shape = a, .kind = kind_of(row.positive_a)}, {.shape = b, .kind = kind_of(row.positive_b)}},
       .apply = [=](const Tensors& in) { return binary(in[0], in[1], row.kind, broadcast(a, b, y), y); },
       .expected =
           [=](const Arrays& in) {
             Array result(y);
             std::int64_t at = 0;
             for_each_index(y, [&](const std::vector<std::int64_t>& index) {
               result[at++] = row.f(element(in[0], index), element(in[1], index));
             });
             return result;
           },
       .has_backward = false});
}

void add_binaries(std::vector<OperatorCase>& rows) {
  const std::vector<BinaryRow> all{
      {"add", Binary::add, [](double a, double b) { return a + b; }},
      {"subtract", Binary::subtract, [](double a, double b) { return a - b; }},
      {"multiply", Binary::multiply, [](double a, double b) { return a * b; }},
      {"divide", Binary::divide, [](double a, double b) { return a / b; }, false, true},
      {"minimum", Binary::minimum, [](double a, double b) { return std::min(a, b); }},
      {"maximum", Binary::maximum, [](double a, double b) { return std::max(a, b); }},
      {"power", Binary::power, [](double a, double b) { return std::exp(b * std::log(a)); }, true}};
  for (const BinaryRow& row : all) {
    add_binary(rows, row, "same_shape", {2, 5, 3, 7}, {2, 5, 3, 7});
    add_binary(rows, row, "per_channel", {2, 5, 3, 8}, {1, 1, 1, 8});
  }
  const BinaryRow& subtract = all[1];  // whose operands cannot be exchanged unnoticed
  const Shape x{2, 5, 3, 16};
  add_binary(rows, subtract, "scalar", x, {1, 1, 1, 1});
  add_binary(rows, subtract, "from_scalar", {1, 1, 1, 1}, x);
  add_binary(rows, subtract, "per_image_and_channel", x, {2, 1, 1, 16});
  add_binary(rows, subtract, "from_channel", {1, 1, 1, 16}, x);
  add_binary(rows, subtract, "per_pixel", x, {2, 5, 3, 1});
  add_binary(rows, subtract, "per_column", x, {1, 1, 3, 1});
  add_binary(rows, subtract, "both_broadcast", {2, 1, 3, 1}, {1, 5, 1, 16});
  add_binary(rows, subtract, "odd_channels", {2, 4, 3, 5}, {2, 1, 1, 5});
}

// --- moving elements

// The row `name`: a walk of x {shape} into a new tensor {to} that must be what `from(index of the result)` picks.
void add_move(std::vector<OperatorCase>& rows, const std::string& name, const Shape& shape, std::int64_t offset,
              const Walk& walk, const Shape& to,
              const std::function<std::vector<std::int64_t>(const std::vector<std::int64_t>&)>& from) {
  rows.push_back({.name = "strided_copy_" + name,
                  .inputs = {normal(shape)},
                  .apply = [=](const Tensors& in) { return strided_copy(in[0], offset, walk, to); },
                  .expected =
                      [=](const Arrays& in) {
                        Array y(to);
                        std::int64_t at = 0;
                        for_each_index(
                            to, [&](const std::vector<std::int64_t>& index) { y[at++] = element(in[0], from(index)); });
                        return y;
                      },
                  .bf16_tolerance = 0,
                  .has_backward = false});
}

using Index = std::vector<std::int64_t>;

void add_moves(std::vector<OperatorCase>& rows) {
  add_move(rows, "nhwc_to_nchw", {2, 3, 5, 4}, 0, {4, {2, 4, 3, 5}, {60, 1, 20, 4}}, {2, 4, 3, 5}, [](const Index& i) {
    return Index{i[0], i[2], i[3], i[1]};
  });
  add_move(rows, "nchw_to_nhwc", {2, 8, 3, 5}, 0, {4, {2, 3, 5, 8}, {120, 5, 1, 15}}, {2, 3, 5, 8}, [](const Index& i) {
    return Index{i[0], i[3], i[1], i[2]};
  });
  add_move(rows, "every_other_row_and_column", {2, 6, 7, 4}, 32, {4, {2, 3, 3, 4}, {168, 56, 8, 1}}, {2, 3, 3, 4},
           [](const Index& i) {
             return Index{i[0], 1 + 2 * i[1], 1 + 2 * i[2], i[3]};
           });
  add_move(rows, "mirrored", {2, 3, 5, 4}, 16, {4, {2, 3, 5, 4}, {60, 20, -4, 1}}, {2, 3, 5, 4}, [](const Index& i) {
    return Index{i[0], i[1], 4 - i[2], i[3]};
  });
  add_move(rows, "channels_reversed", {2, 3, 3}, 2, {2, {6, 3}, {3, -1}}, {2, 3, 3}, [](const Index& i) {
    return Index{i[0], i[1], 2 - i[2]};
  });
  add_move(rows, "expanded", {3, 1, 4}, 0, {3, {3, 5, 4}, {4, 0, 1}}, {3, 5, 4}, [](const Index& i) {
    return Index{i[0], 0, i[2]};
  });
  // ShuffleNet's: channel g of 3 groups of 4 becomes channel c of 4 groups of 3; five axes in memory.
  add_move(rows, "channel_shuffle", {2, 3, 2, 12}, 0, {5, {2, 3, 2, 4, 3}, {72, 24, 12, 1, 4}}, {2, 3, 2, 12},
           [](const Index& i) {
             return Index{i[0], i[1], i[2], i[3] % 3 * 4 + i[3] / 3};
           });
  // Six axes, none of which can be joined with its neighbour.
  add_move(rows, "pixel_shuffle", {2, 2, 3, 12}, 0, {6, {2, 2, 2, 3, 2, 3}, {72, 36, 2, 12, 1, 4}}, {2, 4, 6, 3},
           [](const Index& i) {
             return Index{i[0], i[1] / 2, i[2] / 2, i[3] * 4 + i[1] % 2 * 2 + i[2] % 2};
           });
  rows.push_back({.name = "strided_copy_into_padding",
                  .inputs = {normal({2, 3, 4, 5})},
                  .apply =
                      [](const Tensors& in) {
                        Tensor y = Tensor::full({2, 6, 7, 5}, 0.5, in[0].dtype(), in[0].device());
                        strided_copy_into(in[0], 0, y, 45, {4, {2, 3, 4, 5}, {60, 20, 5, 1}, {210, 35, 5, 1}});
                        return y;
                      },
                  .expected =
                      [](const Arrays& in) {
                        Array y({2, 6, 7, 5}, 0.5);
                        for_each_index(in[0].shape, [&](const Index& i) {
                          y.at(i[0], i[1] + 1, i[2] + 2, i[3]) = element(in[0], i);
                        });
                        return y;
                      },
                  .bf16_tolerance = 0,
                  .has_backward = false});
  rows.push_back({.name = "strided_copy_into_concatenation",
                  .inputs = {normal({2, 3, 4}), normal({2, 3, 8})},
                  .apply =
                      [](const Tensors& in) {
                        Tensor y = Tensor::empty({2, 3, 12}, in[0].dtype(), in[0].device());
                        strided_copy_into(in[0], 0, y, 0, {2, {6, 4}, {4, 1}, {12, 1}});
                        strided_copy_into(in[1], 0, y, 4, {2, {6, 8}, {8, 1}, {12, 1}});
                        return y;
                      },
                  .expected =
                      [](const Arrays& in) {
                        Array y({2, 3, 12});
                        std::int64_t at = 0;
                        for_each_index(y.shape, [&](const Index& i) {
                          y[at++] = i[2] < 4 ? element(in[0], i) : element(in[1], {i[0], i[1], i[2] - 4});
                        });
                        return y;
                      },
                  .bf16_tolerance = 0,
                  .has_backward = false});
}

}  // namespace

void add_frozen(std::vector<OperatorCase>& rows) {
  add_unary(rows);
  add_binaries(rows);
  add_moves(rows);
}

}  // namespace retort::testing
