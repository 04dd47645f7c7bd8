// The losses on logits where numbers are at the edge: temperatures from .01 to 10,000, teachers and students that are
// certain, that agree, that are flat, batches of one, two classes and one. In f32 and f64, value and gradient, against
// references in long double; gradients against differences of those.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "distill/losses/loss.h"
#include "engine/ops.h"
#include "models/layers.h"
#include "tests/support/files.h"
#include "tests/support/logit_loss_reference.h"

namespace retort {
namespace {

using reference::Array;
using test::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Inputs {
  std::string name;
  Array student, teacher;
  std::vector<std::int32_t> labels;
};

// Values that f32 holds exactly, so that all types see the same ones.
Array random(const Shape& shape, double size, std::uint64_t seed) {
  Array x = reference::uniform(shape, -size, size, seed);
  for (double& v : x.values) v = static_cast<double>(static_cast<float>(v));
  return x;
}

Array sum_of(const Array& a, const Array& b) {
  Array y = reference::add(a, b);
  for (double& v : y.values) v = static_cast<double>(static_cast<float>(v));
  return y;
}

// 1e4 for one class of each row, 0 for the others.
Array certain(const Shape& shape) {
  Array x(shape);
  for (std::int64_t r = 0; r < shape.rows(); ++r) x[r * shape.last() + r % shape.last()] = 1e4;
  return x;
}

std::vector<Inputs> all_inputs() {
  const Shape shape{3, 10};
  const Array a = random(shape, 5, 1), b = random(shape, 5, 2), flat(shape, 1.5);
  const std::vector<std::int32_t> labels{0, 4, 9};
  return {{"apart", a, b, labels},
          {"equal", a, a, labels},
          {"near", sum_of(a, random(shape, 0.1, 3)), a, labels},
          {"shifted", sum_of(a, Array(shape, 64)), a, labels},
          {"flat student", flat, b, labels},
          {"flat teacher", a, flat, labels},
          {"certain teacher", a, certain(shape), labels},
          {"certain student", certain(shape), b, labels},
          {"both certain", certain(shape), sum_of(certain(shape), a), labels},
          {"large", random(shape, 1e4, 4), random(shape, 1e4, 5), labels},
          {"one sample", random({1, 7}, 3, 6), random({1, 7}, 3, 7), {2}},
          {"two classes", random({4, 2}, 3, 8), random({4, 2}, 3, 9), {0, 1, 1, 0}},
          {"one class", random({2, 1}, 3, 8), random({2, 1}, 3, 9), {0, 0}}};
}

using Value = std::function<double(const Array& student)>;

// A loss of the registry on logits alone.
struct Registered {
  Loss loss;
  std::vector<std::string> notes;
};
Registered registered(const std::string& type, const std::string& keys, std::int64_t classes, std::int64_t batch) {
  const ConfigValue tree = parse_config_tree(keys, "edge.cfg");
  ConfigSection section(tree, "[[loss]]");
  const LossBuilder build = loss_reader(type)(section);
  section.finish();
  NetworkShape network;
  network.classes = classes;
  ParameterStore parts;
  LossContext context{.where = "edge.cfg",
                      .student = network,
                      .teacher = network,
                      .smallest_batch = batch,
                      .parts = parts,
                      .prefix = type};
  Registered result{build(context), {}};
  result.notes = context.notes;
  return result;
}

struct Outcome {
  double value;
  std::vector<double> gradient;
};
Outcome outcome_of(const Loss& loss, const Inputs& inputs, DType dtype) {
  const auto tensor = [&](const Array& x) { return Tensor::from(x.values, x.shape).to(dtype); };
  ModelOutput student{tensor(inputs.student), {}};
  student.logits.set_requires_grad();
  const TeacherBatch teachers({{tensor(inputs.teacher), {}}}, Combine::mean_softmax);
  const Tensor labels = Tensor::from(inputs.labels, {std::ssize(inputs.labels)});
  const Tensor result = loss({labels, ForwardMode(), student, teachers, 0});
  EXPECT_EQ(result.dtype(), dtype);
  result.backward();
  return {result.item(), student.logits.grad().to_doubles()};
}

// `noise`: what the reference itself may be off by, in long double.
void expect_right(const Outcome& got, const Value& value, const Value& slope_of, const Array& student, double step,
                  double noise, const std::string& what) {
  const double expected = value(student);
  EXPECT_NEAR(got.value, expected, 1e-4 * std::abs(expected) + noise) << what;
  std::vector<double> slopes;
  double largest = 0;
  for (std::int64_t i = 0; i < student.numel(); ++i) {
    Array up = student, down = student;
    up[i] += step;
    down[i] -= step;
    slopes.push_back((slope_of(up) - slope_of(down)) / (up[i] - down[i]));
    largest = std::max(largest, std::abs(slopes.back()));
  }
  for (std::size_t i = 0; i < slopes.size(); ++i) {
    ASSERT_NEAR(got.gradient[i], slopes[i], 1e-4 * largest + 1e-8) << what << ", gradient " << i;
  }
}

struct Type {
  std::string name;
  std::string keys;
  std::function<double(const Inputs& in, const Array& student, double temperature)> value;
  // What has the same gradient and is not as large; the value itself where empty.
  std::function<double(const Inputs& in, const Array& student, double temperature)> slope = {};
  std::int64_t least_classes = 1, least_batch = 1;
  double longest_step = 1e-3;  // of the differences
};

double distance(const Array& student, const Array& teacher, double temperature) {
  const Array s = reference::softmax(reference::scale(student, 1 / temperature)),
              t = reference::softmax(reference::scale(teacher, 1 / temperature));
  return temperature * temperature *
         (2 * reference::pearson_distance(s, t, false, 1e-8) + reference::pearson_distance(s, t, true, 1e-8));
}

std::vector<Type> types() {
  const auto divergence = [](const Inputs& in, const Array& student, double temperature) {
    return reference::soft_targets(student, in.teacher, temperature);
  };
  return {{"soft_targets", "", divergence},
          {"soft_cross_entropy", "",
           [](const Inputs& in, const Array& student, double temperature) {
             return reference::soft_cross_entropy(student, in.teacher, temperature);
           },
           divergence},
          {"dkd",
           "alpha = 1.5\nbeta = 2\n",
           [](const Inputs& in, const Array& student, double temperature) {
             const auto terms = reference::decoupled_kd(student, in.teacher, in.labels, temperature);
             return temperature * temperature * (1.5 * terms.target + 2 * terms.others);
           },
           {},
           2},
          {"dist",
           "beta = 2\n",
           [](const Inputs& in, const Array& student, double temperature) {
             return distance(student, in.teacher, temperature);
           },
           {},
           1,
           2,
           1e-4}};  // it bends where |a| |b| is near 1e-8
}

class LossEdges : public ::testing::TestWithParam<double> {};

TEST_P(LossEdges, ValueAndGradientHold) {
  const double temperature = GetParam();
  for (const Type& type : types()) {
    for (const Inputs& in : all_inputs()) {
      const std::int64_t classes = in.student.shape.last(), batch = in.student.shape.rows();
      if (classes < type.least_classes || batch < type.least_batch) continue;
      if (type.name == "dist" && in.name == "flat student") continue;  // see LossEdgesOfDist
      const Loss loss =
          registered(type.name, fmt::format("{}temperature = {}\n", type.keys, temperature), classes, batch).loss;
      const auto of = [&](const auto& f) { return [&](const Array& student) { return f(in, student, temperature); }; };
      const Value value = of(type.value), slope = of(type.slope ? type.slope : type.value);
      for (const DType dtype : {DType::f32, DType::f64}) {
        expect_right(outcome_of(loss, in, dtype), value, slope, in.student,
                     std::min(type.longest_step, 1e-4 * temperature), 1e-16 * temperature * temperature,
                     fmt::format("{} of {} at {} in {}", type.name, in.name, temperature, name_of(dtype)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Temperatures, LossEdges, ::testing::Values(0.01, 0.1, 1, 4, 20, 1000, 10000));

TEST(LossEdgesOfEqualLogits, DivergencesAndTheirGradientsAreZero) {
  const Inputs in{"", random({3, 10}, 5, 1), random({3, 10}, 5, 1), {0, 4, 9}};
  for (const std::string type : {"soft_targets", "dkd"}) {
    for (const char* temperature : {"0.01", "4", "7", "10000"}) {
      const Loss loss = registered(type, fmt::format("temperature = {}\n", temperature), 10, 3).loss;
      const Outcome got = outcome_of(loss, in, DType::f32);
      EXPECT_EQ(got.value, 0) << type << " at " << temperature;
      EXPECT_THAT(got.gradient, ::testing::Each(0)) << type << " at " << temperature;
    }
  }
}

// rho = a·b / (|a| |b| + 1e-8) at a = 0 has the gradient b / 1e-8, and bends too sharply for differences.
TEST(LossEdgesOfDist, AFlatStudentHasTheGradientOfTheLimit) {
  const Shape shape{2, 3};
  const Inputs in{"", Array(shape, 0.5), random(shape, 2, 1), {0, 1}};
  const Array q = reference::softmax(in.teacher);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Outcome got = outcome_of(registered("dist", "gamma = 0\ntemperature = 1\n", 3, 2).loss, in, dtype);
    EXPECT_NEAR(got.value, 1, 1e-6);
    // dp_c / dz = (delta - 1/3) / 3 takes no more than the mean of q - 1/3, which is 0.
    for (std::int64_t i = 0; i < 6; ++i) {
      const double expected = -(q[i] - 1.0 / 3) / 3 / 1e-8 / 2;
      EXPECT_NEAR(got.gradient[static_cast<std::size_t>(i)], expected, 1e-4 * std::abs(expected));
    }
  }
}

TEST(LossEdgesOfLabels, CrossEntropyHolds) {
  for (const Inputs& in : all_inputs()) {
    for (const double smoothing : {0.0, 0.1}) {
      const Loss loss = registered("cross_entropy", fmt::format("label_smoothing = {}\n", smoothing),
                                   in.student.shape.last(), in.student.shape.rows())
                            .loss;
      const Value value = [&](const Array& student) { return reference::cross_entropy(student, in.labels, smoothing); };
      for (const DType dtype : {DType::f32, DType::f64}) {
        expect_right(outcome_of(loss, in, dtype), value, value, in.student, 1e-4, 0,
                     fmt::format("cross_entropy of {} in {}", in.name, name_of(dtype)));
      }
    }
  }
}

// Their softmaxes at 10,000 are equal in the first seven digits, which are all that f32 has for T log C.
TEST(LossEdgesOfEnsembles, MeanSoftmaxHoldsAtHighTemperatures) {
  const Shape shape{3, 100};
  const Array student = random(shape, 5, 1), one = random(shape, 5, 2), two = random(shape, 5, 3);
  for (const double temperature : {2.0, 100.0, 10000.0}) {
    const Array mean = reference::mean_softmax_logits({one, two}, temperature);
    const auto tensor = [](const Array& x) { return Tensor::from(x.values, x.shape).to(DType::f32); };
    const TeacherBatch teachers({{tensor(one), {}}, {tensor(two), {}}}, Combine::mean_softmax);
    const double found = soft_targets(tensor(student), teachers.logits(0, temperature), temperature).item();
    const double expected = reference::soft_targets(student, mean, temperature);
    EXPECT_NEAR(found, expected, 1e-4 * expected) << temperature;
  }
}

TEST(LossEdgesOfConfigs, WhatDoesNotHoldIsRefusedWithItsPlace) {
  const auto error = [](const std::string& type, const std::string& keys, std::int64_t classes = 10) {
    return error_of([&] { registered(type, keys, classes, 4); });
  };
  for (const std::string type : {"soft_targets", "soft_cross_entropy", "dkd", "dist"}) {
    for (const std::string value : {"10001", "1e6", "0", "-4", "inf", "nan", "0.00001"}) {
      EXPECT_THAT(error(type, "temperature = " + value + "\n"),
                  AllOf(HasSubstr("edge.cfg:1"), HasSubstr("temperature")))
          << type << " at " << value;
    }
    EXPECT_NO_THROW(registered(type, "temperature = 10000\n", 10, 4)) << type;
    EXPECT_NO_THROW(registered(type, "temperature = 0.0001\n", 10, 4)) << type;
    EXPECT_THAT(error(type, "standardize = true\n", 1), HasSubstr("at least 2 classes"));
  }
  EXPECT_THAT(error("dkd", "beta = 1e39\n"), AllOf(HasSubstr("edge.cfg:1"), HasSubstr("beta")));
  EXPECT_THAT(error("dkd", "", 1), HasSubstr("at least 2 classes"));
}

TEST(LossEdgesOfConfigs, DecoupledDistillationOfTwoClassesSaysThatTheRestIsEmpty) {
  EXPECT_THAT(registered("dkd", "", 2, 4).notes,
              ::testing::ElementsAre(AllOf(HasSubstr("edge.cfg"), HasSubstr("beta counts for nothing"))));
  EXPECT_THAT(registered("dkd", "", 3, 4).notes, IsEmpty());
}

}  // namespace
}  // namespace retort
