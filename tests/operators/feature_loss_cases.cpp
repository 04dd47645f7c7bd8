// Losses between feature maps. A mean over many elements has small gradients: where that is so a row multiplies the
// loss, so that the bounds of the gradient checks are as strict as elsewhere.
#include "engine/ops.h"
#include "tests/operators/distillation_cases.h"
#include "tests/support/feature_loss_reference.h"

namespace retort::testing {
namespace {

void add_pointwise(std::vector<OperatorCase>& rows) {
  const Shape odd{3, 5, 7}, long_rows{3, 4111};
  rows.push_back(
      loss_row("mean_squared_error", normal(odd), normal(odd), 105, mean_squared_error, reference::mean_squared_error));
  rows.push_back(loss_row("mean_squared_error_long", normal(long_rows), normal(long_rows), 100, mean_squared_error,
                          reference::mean_squared_error));
  rows.back().gradient.max_elements = 24;
  for (const double beta : {1.0, 0.3}) {
    rows.push_back(loss_row(
        beta == 1 ? "smooth_l1" : "smooth_l1_beta", normal(odd), normal(odd), 105,
        [beta](const Tensor& x, const Tensor& t) { return smooth_l1(x, t, beta); },
        [beta](const Array& x, const Array& t) { return reference::smooth_l1(x, t, beta); }));
  }
  Input probability = normal(odd, 0.2);
  probability.offset = 0.5;
  rows.push_back(loss_row("binary_cross_entropy", normal(odd, 2.0), probability, 105, binary_cross_entropy_with_logits,
                          reference::binary_cross_entropy));
  rows.push_back(loss_row("binary_cross_entropy_large_logits", normal(odd, 200.0), probability, 1,
                          binary_cross_entropy_with_logits, reference::binary_cross_entropy));
}

void add_maps(std::vector<OperatorCase>& rows) {
  struct Energy {
    const char* name;
    Shape shape;
    double p;
  };
  for (const Energy& e :
       {Energy{"odd", {2, 3, 5, 3}, 2}, Energy{"packs", {2, 3, 3, 64}, 2}, Energy{"wide", {1, 2, 2, 300}, 2},
        Energy{"absolute", {2, 3, 5, 7}, 1}, Energy{"cubed", {2, 3, 5, 7}, 3}, Energy{"root", {2, 3, 5, 7}, 0.5}}) {
    rows.push_back({.name = std::string("channel_energy_") + e.name,
                    .inputs = {normal(e.shape)},
                    .apply = [p = e.p](const Tensors& in) { return channel_energy(in[0], p); },
                    .expected = [p = e.p](const Arrays& in) { return reference::channel_energy(in[0], p); }});
    // |x| has a kink at 0. The slope of its root has a pole there, too steep for central differences near it and for
    // values rounded to bf16.
    if (e.p == 1) rows.back().gradient.kink = 0.0;
    if (e.p < 1) rows.back().gradient = {.step = 1e-6, .tolerance = 1e-6, .kink = 0.0, .kink_range = 1e-2};
  }
  for (const auto& [name, shape] : {std::pair{"map", Shape{2, 5, 7, 3}}, {"rows", Shape{2, 33, 70}}}) {
    rows.push_back({.name = std::string("channels_first_") + name,
                    .inputs = {normal(shape)},
                    .apply = [](const Tensors& in) { return channels_first(in[0]); },
                    .expected = [](const Arrays& in) { return reference::channels_first(in[0]); },
                    .gradient = {.max_elements = 48}});
  }
  // Two reversals whose strengths multiply to 1: central differences know nothing of a reversal.
  rows.push_back({.name = "reverse_gradient_twice",
                  .inputs = {normal({4, 33})},
                  .apply = [](const Tensors& in) { return reverse_gradient(reverse_gradient(in[0], 0.25), 4.0); },
                  .expected = [](const Arrays& in) { return in[0]; }});
}

void add_statistics(std::vector<OperatorCase>& rows) {
  // The operator takes the accumulation type alone: the row converts.
  const auto selectivity = [](const Tensor& s, const Tensor& t) {
    return neuron_selectivity(accumulated(s), accumulated(t));
  };
  rows.push_back(loss_row("neuron_selectivity", normal({2, 3, 7}, 0.5), normal({2, 5, 7}, 0.5), 10, selectivity,
                          reference::neuron_selectivity));
  rows.push_back(loss_row("neuron_selectivity_tiles", normal({3, 70, 67}, 0.2), normal({3, 13, 67}, 0.2), 100,
                          selectivity, reference::neuron_selectivity));
  rows.back().gradient.max_elements = 12;

  for (const auto& [name, shape] : {std::pair{"odd", Shape{2, 3, 3, 5}}, {"long", Shape{300, 64}}}) {
    const double factor = static_cast<double>(shape.numel()) / 10;
    rows.push_back(
        {.name = std::string("variational_information_") + name,
         .inputs = {normal(shape), normal(shape), parameter(shape.last(), 1.0)},
         .apply = [factor](const Tensors& in) { return scale(variational_information(in[0], in[1], in[2]), factor); },
         .expected =
             [factor](const Arrays& in) {
               return Array({1}, factor * reference::variational_information(in[0], in[1], in[2], 1e-5));
             },
         .gradient = {.max_elements = 32},
         .constant_inputs = {1}});
  }
}

}  // namespace

void add_feature_losses(std::vector<OperatorCase>& rows) {
  add_pointwise(rows);
  add_maps(rows);
  add_statistics(rows);
}

}  // namespace retort::testing
