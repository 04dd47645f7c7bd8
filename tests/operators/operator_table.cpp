#include "tests/operators/operator_table.h"

#include "engine/ops.h"

namespace retort::testing {
namespace {

// --- elementwise, reductions, shape

void add_elementwise(std::vector<OperatorCase>& rows) {
  rows.push_back({.name = "add",
                  .inputs = {normal({3, 5, 7}), normal({3, 5, 7})},
                  .apply = [](const Tensors& in) { return add(in[0], in[1]); },
                  .expected = [](const Arrays& in) { return reference::add(in[0], in[1]); }});
  rows.push_back({.name = "add_same_tensor_twice",
                  .inputs = {normal({2, 9})},
                  .apply = [](const Tensors& in) { return add(in[0], in[0]); },
                  .expected = [](const Arrays& in) { return reference::scale(in[0], 2.0); }});
  rows.push_back({.name = "scale",
                  .inputs = {normal({4, 33})},
                  .apply = [](const Tensors& in) { return scale(in[0], -2.5); },
                  .expected = [](const Arrays& in) { return reference::scale(in[0], -2.5); }});
  rows.push_back({.name = "scale_by",
                  .inputs = {normal({4, 33}), parameter(1)},
                  .apply = [](const Tensors& in) { return scale_by(in[0], in[1]); },
                  .expected = [](const Arrays& in) { return reference::scale(in[0], in[1].values[0]); },
                  .constant_inputs = {1}});
  rows.push_back({.name = "cast_and_back",
                  .inputs = {normal({4, 33})},
                  .apply = [](const Tensors& in) { return cast(cast(in[0], DType::f64), in[0].dtype()); },
                  .expected = [](const Arrays& in) { return in[0]; }});
  rows.push_back({.name = "square",
                  .inputs = {normal({3, 5, 7})},
                  .apply = [](const Tensors& in) { return square(in[0]); },
                  .expected = [](const Arrays& in) { return reference::square(in[0]); }});
  rows.push_back({.name = "relu",
                  .inputs = {normal({3, 5, 2, 9})},
                  .apply = [](const Tensors& in) { return relu(in[0]); },
                  .expected = [](const Arrays& in) { return reference::activation(in[0], Activation::relu); },
                  .gradient = {.kink = 0.0}});
  rows.push_back({.name = "relu6",
                  .inputs = {normal({3, 50}, 4.0)},
                  .apply = [](const Tensors& in) { return relu6(in[0]); },
                  .expected = [](const Arrays& in) { return reference::activation(in[0], Activation::relu6); },
                  .gradient = {.kink = 0.0}});
  rows.push_back({.name = "dropout",
                  .inputs = {normal({3, 5, 5, 2})},
                  .apply =
                      [](const Tensors& in) {
                        const Device device = in[0].device();
                        const SampleContext samples{Tensor::from(std::vector<std::int32_t>{4, 0, 77}, {3}, device),
                                                    Tensor::from(std::vector<std::int32_t>{2}, {1}, device), 11};
                        return dropout(in[0], 0.3, samples, 1025);
                      },
                  .expected =
                      [](const Arrays& in) {
                        return reference::dropout(in[0], {4, 0, 77}, 2, 0.3, {11, 1025});
                      }});
}

void add_reductions_and_shape(std::vector<OperatorCase>& rows) {
  rows.push_back({.name = "sum",
                  .inputs = {normal({7, 11, 13})},
                  .apply = [](const Tensors& in) { return sum(in[0]); },
                  .expected = [](const Arrays& in) { return scalar(reference::sum(in[0])); }});
  rows.push_back({.name = "mean",
                  .inputs = {normal({1, 5003})},
                  .apply = [](const Tensors& in) { return mean(in[0]); },
                  .expected = [](const Arrays& in) { return scalar(reference::sum(in[0]) / 5003.0); }});
  rows.push_back({.name = "reshape",
                  .inputs = {normal({2, 3, 4})},
                  .apply =
                      [](const Tensors& in) {
                        return reshape(in[0], {6, 4});
                      },
                  .expected =
                      [](const Arrays& in) {
                        return Array({6, 4}, in[0].values);
                      }});
  const auto joined = [](const Arrays& in, std::int64_t outer) {
    std::vector<double> values;
    for (std::int64_t o = 0; o < outer; ++o) {
      for (const Array& part : in) {
        const auto piece = static_cast<std::ptrdiff_t>(part.numel() / outer);
        values.insert(values.end(), part.values.begin() + o * piece, part.values.begin() + (o + 1) * piece);
      }
    }
    return values;
  };
  rows.push_back({.name = "concatenate_channels",
                  .inputs = {normal({2, 3, 3, 5}), normal({2, 3, 3, 1}), normal({2, 3, 3, 4})},
                  .apply = [](const Tensors& in) { return concatenate(in, 3); },
                  .expected =
                      [joined](const Arrays& in) {
                        return Array({2, 3, 3, 10}, joined(in, 18));
                      }});
  rows.push_back({.name = "concatenate_batch",
                  .inputs = {normal({2, 7}), normal({3, 7})},
                  .apply = [](const Tensors& in) { return concatenate(in, 0); },
                  .expected =
                      [joined](const Arrays& in) {
                        return Array({5, 7}, joined(in, 1));
                      }});
}

// --- products

Array product(const Array& a, bool ta, const Array& b, bool tb, const Array* bias) {
  const std::int64_t m = a.shape[ta ? 1 : 0], k = a.shape[ta ? 0 : 1], n = b.shape[tb ? 0 : 1];
  Array y({m, n});
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double total = bias ? (*bias)[j] : 0.0;
      for (std::int64_t l = 0; l < k; ++l) total += a[ta ? l * m + i : i * k + l] * b[tb ? j * k + l : l * n + j];
      y[i * n + j] = total;
    }
  }
  return y;
}

void add_products(std::vector<OperatorCase>& rows) {
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      rows.push_back({.name = std::string("matmul") + (ta ? "_ta" : "") + (tb ? "_tb" : ""),
                      .inputs = {normal(ta ? Shape{5, 3} : Shape{3, 5}), normal(tb ? Shape{7, 5} : Shape{5, 7})},
                      .apply = [ta, tb](const Tensors& in) { return matmul(in[0], in[1], ta, tb, Math::strict); },
                      .expected = [ta, tb](const Arrays& in) { return product(in[0], ta, in[1], tb, nullptr); }});
    }
  }
  rows.push_back({.name = "linear",
                  .inputs = {normal({6, 19}), normal({10, 19}), parameter(10)},
                  .apply = [](const Tensors& in) { return linear(in[0], in[1], in[2], Math::strict); },
                  .expected = [](const Arrays& in) { return product(in[0], false, in[1], true, &in[2]); }});
  rows.push_back({.name = "linear_without_bias",
                  .inputs = {normal({2, 64}), normal({3, 64})},
                  .apply = [](const Tensors& in) { return linear(in[0], in[1], Tensor(), Math::strict); },
                  .expected = [](const Arrays& in) { return product(in[0], false, in[1], true, nullptr); }});
}

// --- batch normalisation

BatchNormStatistics statistics(std::int64_t channels, const Tensor& x) {
  const DType type = accumulation_type(x.dtype());
  return {Tensor::zeros({channels}, type, x.device()), Tensor::full({channels}, 1.0, type, x.device()),
          Tensor::zeros({1}, DType::i32, x.device())};
}

void add_batch_norm(std::vector<OperatorCase>& rows, const Shape& shape, Activation act, bool residual) {
  const std::int64_t channels = shape.last();
  BatchNormParams params;
  params.act = act;
  std::vector<Input> inputs{normal(shape), parameter(channels, 1.0), parameter(channels)};
  if (residual) inputs.push_back(normal(shape));
  const std::string name = std::string(residual ? "_residual" : "") + suffix(act) + "_c" + std::to_string(channels);
  // Central differences see kinks of the activation behind the normalisation; a small step keeps clear of them.
  const GradientCheckOptions gradient{.step = 1e-6, .tolerance = 1e-6, .max_elements = 48};
  rows.push_back(
      {.name = "batch_norm_training" + name,
       .inputs = inputs,
       .apply =
           [=](const Tensors& in) {
             return batch_norm_training(in[0], residual ? in[3] : Tensor(), in[1], in[2], statistics(channels, in[0]),
                                        params);
           },
       .expected =
           [=](const Arrays& in) {
             return reference::batch_norm(in[0], residual ? in[3] : Array(), in[1], in[2], params.epsilon, act).y;
           },
       .f32_tolerance = 4e-6,
       .f32_gradient_tolerance = 2e-5,
       .gradient = gradient});
  std::vector<Input> with_statistics = inputs;
  with_statistics.push_back(parameter(channels));
  with_statistics.push_back(positive_parameter(channels));
  const std::size_t at = inputs.size();
  rows.push_back({.name = "batch_norm_inference" + name,
                  .inputs = with_statistics,
                  .apply =
                      [=](const Tensors& in) {
                        BatchNormStatistics s = statistics(channels, in[0]);
                        s.running_mean = in[at];
                        s.running_var = in[at + 1];
                        return batch_norm_inference(in[0], residual ? in[3] : Tensor(), in[1], in[2], s, params);
                      },
                  .expected =
                      [=](const Arrays& in) {
                        return reference::batch_norm_inference(in[0], residual ? in[3] : Array(), in[1], in[2], in[at],
                                                               in[at + 1], params.epsilon, act);
                      },
                  .f32_tolerance = 4e-6,
                  .f32_gradient_tolerance = 2e-5,
                  .gradient = gradient,
                  .constant_inputs = {at, at + 1}});
}

// --- pooling

void add_pooling(std::vector<OperatorCase>& rows) {
  const PoolParams stem{3, 3, 2, 2, 1, 1}, halves{2, 2, 2, 2, 0, 0}, odd{3, 2, 1, 3, 1, 0}, subsample{1, 1, 2, 2, 0, 0};
  for (const auto& [name, params] : {std::pair{"stem", stem}, {"halves", halves}, {"odd", odd}}) {
    rows.push_back({.name = std::string("max_pool_") + name,
                    .inputs = {distinct({2, 7, 6, 3})},
                    .apply = [params = params](const Tensors& in) { return max_pool(in[0], params); },
                    .expected = [params = params](const Arrays& in) { return reference::max_pool(in[0], params).y; }});
  }
  for (const auto& [name, params] :
       {std::pair{"stem", stem}, {"halves", halves}, {"odd", odd}, {"subsample", subsample}}) {
    rows.push_back(
        {.name = std::string("average_pool_") + name,
         .inputs = {normal({2, 7, 6, 3})},
         .apply = [params = params](const Tensors& in) { return average_pool(in[0], params); },
         .expected = [params = params](const Arrays& in) { return reference::average_pool(in[0], params); }});
  }
  // What networks from elsewhere ask for. 8 x 7 pixels: rounding up adds a row to "end", and "ceil" drops a last
  // window that would see padding only.
  PoolParams end{3, 2, 2, 2, 0, 0}, ceil{3, 3, 2, 4, 1, 1}, wide{3, 3, 1, 2, 2, 1}, dilated{3, 2, 2, 1, 2, 1};
  end.pad_h_end = 2, end.pad_w_end = 1;
  ceil.ceil_mode = true;
  wide.pad_h_end = 0;
  dilated.dilation_h = 2, dilated.dilation_w = 3;
  dilated.ceil_mode = true;
  for (const auto& [name, params] : {std::pair{"end", end}, {"ceil", ceil}, {"wide", wide}, {"dilated", dilated}}) {
    rows.push_back({.name = std::string("max_pool_") + name,
                    .inputs = {distinct({2, 8, 7, 3})},
                    .apply = [params = params](const Tensors& in) { return max_pool(in[0], params); },
                    .expected = [params = params](const Arrays& in) { return reference::max_pool(in[0], params).y; }});
    if (params.dilation_h > 1) continue;
    for (const bool count_padding : {true, false}) {
      PoolParams p = params;
      p.count_padding = count_padding;
      rows.push_back({.name = std::string("average_pool_") + name + (count_padding ? "" : "_pixels_only"),
                      .inputs = {normal({2, 8, 7, 3})},
                      .apply = [p](const Tensors& in) { return average_pool(in[0], p); },
                      .expected = [p](const Arrays& in) { return reference::average_pool(in[0], p); }});
    }
  }
  rows.push_back({.name = "adaptive_average_pool",
                  .inputs = {normal({2, 7, 5, 3})},
                  .apply = [](const Tensors& in) { return adaptive_average_pool(in[0], 3, 4); },
                  .expected = [](const Arrays& in) { return reference::adaptive_average_pool(in[0], 3, 4); }});
  rows.push_back({.name = "global_average_pool",
                  .inputs = {normal({3, 8, 8, 20})},
                  .apply = [](const Tensors& in) { return global_average_pool(in[0]); },
                  .expected =
                      [](const Arrays& in) {
                        return Array({3, 20}, reference::adaptive_average_pool(in[0], 1, 1).values);
                      }});
}

// --- rows

void add_row_operators(std::vector<OperatorCase>& rows) {
  rows.push_back({.name = "softmax",
                  .inputs = {normal({5, 13}, 3.0)},
                  .apply = [](const Tensors& in) { return softmax(in[0]); },
                  .expected = [](const Arrays& in) { return reference::softmax(in[0]); }});
  rows.push_back({.name = "softmax_large_logits",
                  .inputs = {{.shape = {3, 100}, .parameter = 40.0, .offset = 500.0}},
                  .apply = [](const Tensors& in) { return softmax(in[0]); },
                  .expected = [](const Arrays& in) { return reference::softmax(in[0]); }});
  rows.push_back({.name = "log_softmax",
                  .inputs = {normal({5, 13}, 3.0)},
                  .apply = [](const Tensors& in) { return log_softmax(in[0]); },
                  .expected = [](const Arrays& in) { return reference::log_softmax(in[0]); }});
  rows.push_back({.name = "l2_normalize",
                  .inputs = {normal({4, 37})},
                  .apply = [](const Tensors& in) { return l2_normalize(in[0]); },
                  .expected = [](const Arrays& in) { return reference::l2_normalize(in[0], 1e-12); }});
  // Rows shorter than epsilon take the other branch.
  rows.push_back({.name = "l2_normalize_short_rows",
                  .inputs = {normal({4, 5}, 0.1)},
                  .apply = [](const Tensors& in) { return l2_normalize(in[0], 10.0); },
                  .expected = [](const Arrays& in) { return reference::l2_normalize(in[0], 10.0); }});
  for (const double smoothing : {0.0, 0.1}) {
    for (const int classes : {10, 100}) {
      rows.push_back({.name = "cross_entropy_" + std::to_string(classes) + (smoothing > 0 ? "_smoothed" : ""),
                      .inputs = {normal({7, classes}, 2.0), labels(7, classes)},
                      .apply = [smoothing](const Tensors& in) { return cross_entropy(in[0], in[1], smoothing); },
                      .expected =
                          [smoothing](const Arrays& in) {
                            return scalar(reference::cross_entropy(in[0], to_ints(in[1]), smoothing));
                          }});
    }
  }
}

}  // namespace

const std::vector<OperatorCase>& operator_cases() {
  static const std::vector<OperatorCase> rows = [] {
    std::vector<OperatorCase> all;
    add_elementwise(all);
    add_reductions_and_shape(all);
    add_products(all);
    add_convolutions(all);
    for (const Activation act : {Activation::identity, Activation::relu, Activation::relu6}) {
      for (const bool residual : {false, true}) add_batch_norm(all, {3, 4, 3, 6}, act, residual);
    }
    add_batch_norm(all, {5, 7, 3, 33}, Activation::relu, true);
    add_batch_norm(all, {129, 64}, Activation::relu, false);
    add_pooling(all);
    add_frozen(all);
    add_row_operators(all);
    add_logit_losses(all);
    add_feature_losses(all);
    add_relation_losses(all);
    return all;
  }();
  return rows;
}

}  // namespace retort::testing
