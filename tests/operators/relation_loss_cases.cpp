// Losses between the relations of samples. The operators take the accumulation type alone, so the rows convert their
// inputs: in bf16 they show that features of a network in bf16 get their gradients. References start from the samples;
// so do the rows, by way of the operators that give distances and cosines.
#include "engine/ops.h"
#include "tests/operators/distillation_cases.h"
#include "tests/support/relation_loss_reference.h"

namespace retort::testing {
namespace {

Tensor squares(const Tensor& x) {
  return pairwise_squared_distances(accumulated(x));
}
Tensor cosines(const Tensor& x) {
  const Tensor y = l2_normalize(accumulated(x));
  return matmul(y, y, false, true, Math::strict);
}

// A loss between samples and constant ones of the teacher, times `factor`.
OperatorCase loss_row(const std::string& name, const Shape& student, const Shape& teacher, double factor,
                      const Loss& loss, const LossReference& expected) {
  OperatorCase row = loss_row(name, normal(student), normal(teacher), factor, loss, expected);
  row.gradient.max_elements = 32;
  return row;
}

// The same with the student's last sample there twice; a gradient check moves both.
OperatorCase twins_row(const std::string& name, double factor, const Loss& loss, const LossReference& expected) {
  const auto joined = [](const Arrays& in) {
    std::vector<double> values = in[0].values;
    for (int copy = 0; copy < 2; ++copy) values.insert(values.end(), in[1].values.begin(), in[1].values.end());
    return Array({5, 7}, values);
  };
  return {.name = name,
          .inputs = {normal({3, 7}), normal({1, 7}), normal({5, 7})},
          .apply =
              [=](const Tensors& in) {
                return scale(loss(concatenate({in[0], in[1], in[1]}, 0), in[2]), factor);
              },
          .expected = [=](const Arrays& in) { return Array({1}, factor * expected(joined(in), in[2])); },
          .constant_inputs = {2}};
}

void add_distances(std::vector<OperatorCase>& rows) {
  for (const auto& [name, shape] : {std::pair{"odd", Shape{5, 7}}, {"two", Shape{2, 3}}, {"tiles", Shape{19, 70}}}) {
    rows.push_back({.name = std::string("pairwise_squared_distances_") + name,
                    .inputs = {normal(shape, 0.5)},
                    .apply = [](const Tensors& in) { return squares(in[0]); },
                    .expected = [](const Arrays& in) { return reference::pairwise_squared_distances(in[0]); },
                    .gradient = {.max_elements = 32}});
  }
  struct Variant {
    const char* name;
    DistanceLossOptions options;
  };
  for (const Variant& v :
       {Variant{"", {}}, Variant{"_plain", {.normalize = false}},
        Variant{"_squared", {.normalize = false, .squared = true}}, Variant{"_normalized_squared", {.squared = true}},
        Variant{"_clamped", {.epsilon = 14.0}}}) {  // about half of the distances count as its root
    const Loss loss = [o = v.options](const Tensor& s, const Tensor& t) {
      return distance_loss(squares(s), squares(t), o);
    };
    const LossReference expected = [o = v.options](const Array& s, const Array& t) {
      return reference::relational_distance(s, t, o.normalize, o.squared, o.epsilon);
    };
    const std::string name = std::string("distance_loss") + v.name;
    rows.push_back(loss_row(name, {5, 7}, {5, 9}, 25, loss, expected));
    if (v.options.epsilon > 1) continue;
    rows.push_back(loss_row(name + "_two", {2, 3}, {2, 5}, 4, loss, expected));
    rows.push_back(twins_row(name + "_twins", 25, loss, expected));
  }
  rows.push_back(loss_row(
      "distance_loss_many", {35, 7}, {35, 9}, 1000,
      [](const Tensor& s, const Tensor& t) { return distance_loss(squares(s), squares(t)); },
      [](const Array& s, const Array& t) { return reference::relational_distance(s, t, true, false, 1e-12); }));
  rows.back().gradient.max_elements = 12;
}

void add_angles(std::vector<OperatorCase>& rows) {
  const Loss loss = [](const Tensor& s, const Tensor& t) { return angle_loss(squares(s), squares(t)); };
  const LossReference expected = [](const Array& s, const Array& t) {
    return reference::relational_angle(s, t, 1e-12);
  };
  rows.push_back(loss_row("angle_loss", {5, 7}, {5, 9}, 50, loss, expected));
  rows.push_back(loss_row("angle_loss_two", {2, 3}, {2, 5}, 50, loss, expected));
  // Cosines that differ by more than 1: the other branch of smooth L1.
  rows.push_back(loss_row("angle_loss_narrow", {6, 2}, {6, 1}, 50, loss, expected));
  rows.push_back(loss_row("angle_loss_many", {35, 7}, {35, 9}, 1000, loss, expected));
  rows.back().gradient.max_elements = 12;
  rows.push_back(twins_row("angle_loss_twins", 50, loss, expected));
  // Samples nearer than epsilon, though not the same, count as the same. No distance is within a step of it.
  rows.push_back(loss_row(
      "angle_loss_near", {7, 2}, {7, 2}, 50,
      [](const Tensor& s, const Tensor& t) { return angle_loss(squares(s), squares(t), 1.0); },
      [](const Array& s, const Array& t) { return reference::relational_angle(s, t, 1.0); }));
}

void add_others(std::vector<OperatorCase>& rows) {
  const Loss transfer = [](const Tensor& s, const Tensor& t) { return probability_transfer(cosines(s), cosines(t)); };
  const LossReference transferred = [](const Array& s, const Array& t) {
    return reference::probability_transfer(s, t, 1e-7);
  };
  rows.push_back(loss_row("probability_transfer", {5, 7}, {5, 9}, 100, transfer, transferred));
  rows.push_back(loss_row("probability_transfer_two", {2, 3}, {2, 5}, 10, transfer, transferred));
  rows.push_back(loss_row("probability_transfer_many", {35, 6}, {35, 6}, 1000, transfer, transferred));
  rows.back().gradient.max_elements = 12;

  for (const Shape& shape : {Shape{5, 7}, Shape{2, 3}, Shape{7, 300}}) {
    rows.push_back(
        {.name = "correlation_congruence_" + std::to_string(shape[0]),
         .inputs = {normal(shape), normal(shape)},
         .apply = [](const Tensors& in) { return correlation_congruence(accumulated(in[0]), accumulated(in[1])); },
         .expected = [](const Arrays& in) { return Array({1}, reference::correlation_congruence(in[0], in[1])); },
         .gradient = {.max_elements = 32}});
  }
}

}  // namespace

void add_relation_losses(std::vector<OperatorCase>& rows) {
  add_distances(rows);
  add_angles(rows);
  add_others(rows);
}

}  // namespace retort::testing
