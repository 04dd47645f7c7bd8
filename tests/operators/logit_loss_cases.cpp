// Rows of the operator table: losses between logits.
#include "engine/ops.h"
#include "tests/operators/operator_table.h"
#include "tests/support/logit_loss_reference.h"

namespace retort::testing {
namespace {

void add_standardize(std::vector<OperatorCase>& rows) {
  const auto add = [&](const std::string& name, const Input& x, double epsilon) {
    rows.push_back({.name = "standardize_rows" + name,
                    .inputs = {x},
                    .apply = [epsilon](const Tensors& in) { return standardize_rows(in[0], epsilon); },
                    .expected = [epsilon](const Arrays& in) { return reference::standardize_rows(in[0], epsilon); }});
  };
  add("_100", normal({5, 100}, 3.0), 1e-7);
  add("_7", normal({4, 7}), 1e-7);
  add("_2", normal({9, 2}), 1e-7);
  add("_large_epsilon", normal({4, 7}), 0.5);
  add("_offset", {.shape = {3, 33}, .offset = 64.0}, 1e-7);
}

// One shape of student and teacher logits, and how large they are.
struct Logits {
  std::string name;
  std::int64_t batch, classes;
  double deviation;
};

const std::vector<Logits>& logit_shapes() {
  // A deviation of 16 makes logits up to ±40.
  static const std::vector<Logits> shapes{
      {"100", 7, 100, 2.0}, {"7", 5, 7, 2.0}, {"one_row", 1, 10, 2.0}, {"large", 6, 100, 16.0}};
  return shapes;
}

void add_soft_targets(std::vector<OperatorCase>& rows) {
  for (const Logits& logits : logit_shapes()) {
    for (const double temperature : {1.0, 4.0, 1000.0}) {
      const std::string suffix = "_" + logits.name + "_t" + std::to_string(static_cast<int>(temperature));
      const Input input = normal({logits.batch, logits.classes}, logits.deviation);
      rows.push_back(
          {.name = "soft_targets" + suffix,
           .inputs = {input, input},
           .apply = [temperature](const Tensors& in) { return soft_targets(in[0], in[1], temperature); },
           .expected =
               [temperature](const Arrays& in) { return scalar(reference::soft_targets(in[0], in[1], temperature)); },
           .constant_inputs = {1}});
      if (temperature > 100) continue;  // so large a value leaves a difference of two of them no digits
      rows.push_back(
          {.name = "soft_cross_entropy" + suffix,
           .inputs = {input, input},
           .apply = [temperature](const Tensors& in) { return soft_cross_entropy(in[0], in[1], temperature); },
           .expected =
               [temperature](const Arrays& in) {
                 return scalar(reference::soft_cross_entropy(in[0], in[1], temperature));
               },
           .constant_inputs = {1}});
    }
  }
}

void add_decoupled(std::vector<OperatorCase>& rows, const Logits& logits, double alpha, double beta,
                   double temperature) {
  const Input input = normal({logits.batch, logits.classes}, logits.deviation);
  rows.push_back(
      {.name = "decoupled_kd_" + logits.name + "_t" + std::to_string(static_cast<int>(temperature)),
       .inputs = {input, input, labels(logits.batch, static_cast<int>(logits.classes))},
       .apply = [=](const Tensors& in) { return decoupled_kd(in[0], in[1], in[2], alpha, beta, temperature); },
       .expected =
           [=](const Arrays& in) {
             const auto terms = reference::decoupled_kd(in[0], in[1], to_ints(in[2]), temperature);
             return scalar(temperature * temperature * (alpha * terms.target + beta * terms.others));
           },
       .constant_inputs = {1, 2}});
}

void add_pearson(std::vector<OperatorCase>& rows, const std::string& name, const Input& x, const Input& y) {
  for (const bool columns : {false, true}) {
    rows.push_back(
        {.name = std::string("pearson_distance_") + (columns ? "columns_" : "rows_") + name,
         .inputs = {x, y},
         .apply = [columns](const Tensors& in) { return pearson_distance(in[0], in[1], columns); },
         .expected =
             [columns](const Arrays& in) { return scalar(reference::pearson_distance(in[0], in[1], columns, 1e-8)); },
         .constant_inputs = {1}});
  }
}

// As it is used: on probabilities.
void add_pearson_of_softmax(std::vector<OperatorCase>& rows) {
  for (const bool columns : {false, true}) {
    rows.push_back(
        {.name = std::string("pearson_distance_of_softmax") + (columns ? "_columns" : "_rows"),
         .inputs = {normal({8, 100}, 2.0), normal({8, 100}, 2.0)},
         .apply = [columns](const Tensors& in) { return pearson_distance(softmax(in[0]), softmax(in[1]), columns); },
         .expected =
             [columns](const Arrays& in) {
               return scalar(
                   reference::pearson_distance(reference::softmax(in[0]), reference::softmax(in[1]), columns, 1e-8));
             },
         .constant_inputs = {1}});
  }
}

}  // namespace

void add_logit_losses(std::vector<OperatorCase>& rows) {
  add_standardize(rows);
  add_soft_targets(rows);
  for (const Logits& logits : logit_shapes()) {
    for (const double temperature : {1.0, 4.0, 1000.0}) add_decoupled(rows, logits, 1.0, 8.0, temperature);
  }
  add_decoupled(rows, {"two_classes", 9, 2, 2.0}, 1.5, 2.0, 1.0);
  add_pearson(rows, "7", normal({5, 7}), normal({5, 7}));
  add_pearson(rows, "100", normal({37, 100}), normal({37, 100}));
  add_pearson(rows, "offset", {.shape = {6, 9}, .offset = 30.0}, {.shape = {6, 9}, .offset = -30.0});
  add_pearson(rows, "constant_y", normal({5, 7}), {.shape = {5, 7}, .kind = Input::Kind::constant});
  add_pearson(rows, "one_row", normal({1, 12}), normal({1, 12}));
  add_pearson_of_softmax(rows);
}

}  // namespace retort::testing
