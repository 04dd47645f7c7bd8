// The losses of the registry as a config makes them: on a tiny student and teacher, the value beside a reference
// written from the paper in plain f64 loops, and the gradient of every kind of parameter beside central differences
// through the whole student.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <optional>

#include "data/random_stream.h"
#include "distill/distill_objective.h"
#include "engine/autograd.h"
#include "engine/optimizer.h"
#include "engine/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/loss_reference.h"

namespace retort {
namespace {

using test::error_of;
using ::testing::HasSubstr;
using Array = reference::Array;

constexpr std::int64_t kBatch = 5, kClasses = 7;
constexpr int kSize = 8;

ImageSet random_images(std::int64_t count) {
  RandomStream random(3, kPurposeSynthetic, 0, 0);
  ImageSet set;
  set.count = count;
  set.height = set.width = kSize;
  set.images.resize(static_cast<std::size_t>(count) * kSize * kSize * 3);
  for (auto& value : set.images) value = static_cast<std::uint8_t>(random.word() >> 24);
  for (std::int64_t i = 0; i < count; ++i) set.labels.push_back(static_cast<std::int32_t>(random.below(kClasses)));
  return set;
}

Session tiny_session(std::int64_t images) {
  Session session;
  session.arithmetic.dtype = DType::f64;
  session.train_data = session.test_data = DeviceData::upload(random_images(images), session.device);
  session.train.resize(static_cast<std::size_t>(images));
  std::iota(session.train.begin(), session.train.end(), 0);
  session.height = session.width = kSize;
  session.classes = kClasses;
  for (double& deviation : session.augment.std) deviation = 0.25;
  for (double& mean : session.augment.mean) mean = 0.5;
  return session;
}

// A checkpoint with random weights and random batch normalisation, in a folder of this process's own: the tests run
// side by side.
std::string write_teacher(const std::string& arch, std::uint64_t seed) {
  static const test::TemporaryFolder folder;
  const std::string path = folder / (arch + "-" + std::to_string(seed) + ".safetensors");
  const auto model = make_model({.arch = arch, .classes = kClasses});
  model->parameters().materialize({}, DType::f64, seed);
  RandomStream random(seed, kPurposeSynthetic, 1, 0);
  for (const auto& buffer : model->parameters().buffers()) {
    if (buffer->dtype != DType::f32) continue;
    std::vector<double> values(static_cast<std::size_t>(buffer->shape.numel()));
    for (double& v : values) v = buffer->name.ends_with("var") ? random.uniform(0.5f, 2) : random.uniform(-0.3f, 0.3f);
    buffer->value.copy_from_host(values.data());
  }
  write_safetensors(path, model->parameters().to_arrays(),
                    {{"arch", arch}, {"classes", std::to_string(kClasses)}, {"stem", "cifar"}});
  return path;
}

Array array_of(const Tensor& t) {
  return {t.shape(), t.to_doubles()};
}

// One student, its teachers and a batch, for the losses that `config` lists.
class Bench {
 public:
  explicit Bench(const std::string& losses, const std::string& arch = "resnet8")
      : session(tiny_session(kBatch)),
        config(distill_config_of(
            parse_config_tree("precision = \"f64\"\n[data]\nbatch_size = 5\nvalidation = 0\nnormalize = { mean = "
                              "[0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }\n[model]\narch = \"" +
                                  arch + "\"\n[[teacher]]\npath = \"" + write_teacher("resnet14", 2) + "\"\n" + losses,
                              "test"),
            "test")),
        teachers(config.teachers, config.combine, config.run, session),
        model(make_network(config.run, session)),
        objective(*model, config.students[0], teachers, config, session),
        batch(session.train_data, kBatch, DType::f64, session.augment) {
    batch.fill(session.train, 0);
    objective.prepare(0);
    mode.training = true;
    mode.update_statistics = false;
  }

  LossTerms evaluate() {
    if (!taught) taught = teachers.forward(batch.input, 0);
    return objective.evaluate({batch, mode, &teachers, &*taught});
  }

  // What the references see.
  reference::LossInputs inputs() const {
    reference::LossInputs in;
    in.labels = batch.labels.to_host<std::int32_t>();
    const std::vector<std::string> names = model->tap_names();
    const TapNames all(names.begin(), names.end());
    const ModelOutput student = model->forward(batch.input, mode, all);
    const ModelOutput teacher = teachers.all()[0].forward(batch.input, all);
    in.student_logits = array_of(student.logits);
    in.teacher_logits = array_of(teacher.logits);
    for (const std::string& name : names) {
      in.student[name] = array_of(student.taps.at(name));
      in.teacher[name] = array_of(teacher.taps.at(name));
    }
    for (const auto& p : const_cast<Bench*>(this)->objective.parts()->parameters())
      in.parts[p->name] = array_of(p->value);
    return in;
  }

  Session session;
  DistillConfig config;
  Teachers teachers;
  std::unique_ptr<Model> model;
  DistillObjective objective;
  BatchBuffers batch;
  ForwardMode mode;
  std::optional<TeacherBatch> taught;  // of the one batch: the teachers are frozen
};

struct Case {
  std::string name;
  std::string config;  // of the [[loss]] block
  std::function<double(const reference::LossInputs&)> expected;
};

std::vector<Case> cases() {
  namespace ref = reference;
  using In = const reference::LossInputs&;
  return {
      {"cross_entropy", "type = \"cross_entropy\"\nlabel_smoothing = 0.1",
       [](In in) { return ref::cross_entropy_loss(in, 0.1); }},
      {"soft_targets", "type = \"soft_targets\"", [](In in) { return ref::soft_targets_loss(in, 4, false); }},
      {"soft_targets_standardized", "type = \"soft_targets\"\ntemperature = 2\nstandardize = true",
       [](In in) { return ref::soft_targets_loss(in, 2, true); }},
      {"soft_cross_entropy", "type = \"soft_cross_entropy\"", [](In in) { return ref::soft_cross_entropy_loss(in); }},
      {"logit_mse", "type = \"logit_mse\"", [](In in) { return ref::logit_mse_loss(in); }},
      {"dkd", "type = \"dkd\"\nalpha = 1\nbeta = 2", [](In in) { return ref::dkd_loss(in, 1, 2, 4); }},
      {"dist", "type = \"dist\"\nbeta = 2\ngamma = 1.5", [](In in) { return ref::dist_loss(in, 2, 1.5, 4); }},
      {"similarity_preserving", "type = \"similarity_preserving\"",
       [](In in) { return ref::similarity_preserving_loss(in, "layer3"); }},
      {"attention_transfer", "type = \"attention_transfer\"",
       [](In in) {
         return ref::attention_transfer_loss(in, {"layer1", "layer2", "layer3"});
       }},
      {"attention_transfer_unlike_sizes",
       "type = \"attention_transfer\"\ntaps = [\"layer1\"]\nteacher_taps = [\"layer2.pre\"]",
       [](In in) {
         return ref::attention_transfer_pair(ref::pooled_to(in.student.at("layer1"), 4), in.teacher.at("layer2.pre"));
       }},
      {"fitnet", "type = \"fitnet\"", [](In in) { return ref::fitnet_loss(in, "layer2", true); }},
      {"fitnet_plain", "type = \"fitnet\"\nnorm_relu = false\ntaps = [\"layer3\"]",
       [](In in) { return ref::fitnet_loss(in, "layer3", false); }},
      {"fitnet_halved", "type = \"fitnet\"\ntaps = [\"layer1\"]\nteacher_taps = [\"layer2\"]",
       [](In in) { return ref::fitnet_pair(in, in.student.at("layer1"), in.teacher.at("layer2"), true); }},
      {"fitnet_halved_plain",
       "type = \"fitnet\"\nnorm_relu = false\nkernel = 5\ntaps = [\"layer1\"]\nteacher_taps = [\"layer2\"]",
       [](In in) { return ref::fitnet_pair(in, in.student.at("layer1"), in.teacher.at("layer2"), false); }},
      {"fitnet_pooled_teacher", "type = \"fitnet\"\ntaps = [\"layer2\"]\nteacher_taps = [\"layer1\"]",
       [](In in) {
         return ref::fitnet_pair(in, in.student.at("layer2"), ref::pooled_to(in.teacher.at("layer1"), 4), true);
       }},
      {"feature_cosine", "type = \"feature_cosine\"", [](In in) { return ref::feature_cosine_loss(in, "layer3"); }},
      {"rkd", "type = \"rkd\"", [](In in) { return 25 * ref::rkd_distance(in) + 50 * ref::rkd_angle(in); }},
      {"rkd_angle_only", "type = \"rkd\"\ndistance_weight = 0\nangle_weight = 2",
       [](In in) { return 2 * ref::rkd_angle(in); }},
      {"distance_metric", "type = \"distance_metric\"\ncriterion = \"mse\"",
       [](In in) { return ref::distance_metric_loss(in); }},
      {"pkt", "type = \"pkt\"", [](In in) { return ref::pkt_loss(in); }},
      {"vid", "type = \"vid\"\ntaps = [\"layer2\"]", [](In in) { return ref::vid_loss(in, "layer2"); }},
      {"cc", "type = \"cc\"\ndimension = 9", [](In in) { return ref::cc_loss(in); }},
      {"nst", "type = \"nst\"\ntaps = [\"layer2\", \"layer3\"]",
       [](In in) { return ref::nst_loss(in, "layer2") + ref::nst_loss(in, "layer3"); }},
      {"discriminator", "type = \"discriminator\"\nhidden = [6, 4]",
       [](In in) { return ref::discriminator_loss(in, 3); }},
  };
}

class Losses : public ::testing::TestWithParam<Case> {};

std::string block(const Case& c) {
  return "[[loss]]\nweight = 0.7\n" + c.config + "\n";
}

TEST_P(Losses, ValueIsThatOfThePaper) {
  Bench bench(block(GetParam()));
  const LossTerms terms = bench.evaluate();
  const double expected = GetParam().expected(bench.inputs());
  ASSERT_TRUE(std::isfinite(expected));
  EXPECT_NEAR(terms.values.at(0).item(), expected, 1e-10 * std::max(1.0, std::abs(expected)));
  EXPECT_NEAR(terms.total.item(), 0.7 * expected, 1e-10 * std::max(1.0, std::abs(expected)));
}

// One element of every `stride`-th parameter of `store`.
void check_parameters(Bench& bench, ParameterStore& store, std::size_t stride, const std::string& what) {
  constexpr double kStep = 1e-6;
  const autograd::NoGradGuard no_grad;
  for (std::size_t number = 0; number < store.parameters().size(); number += stride) {
    const auto& parameter = store.parameters()[number];
    const std::vector<double> analytic = parameter->grad.to_doubles();
    const std::vector<double> values = parameter->value.to_doubles();
    const std::size_t i = (number * 7 + 3) % values.size();
    {
      const auto at = [&](double value) {
        std::vector<double> changed = values;
        changed[i] = value;
        parameter->value.copy_from_host(changed.data());
        const double total = bench.evaluate().total.item();
        parameter->value.copy_from_host(values.data());
        return total;
      };
      const double numeric = (at(values[i] + kStep) - at(values[i] - kStep)) / (2 * kStep);
      EXPECT_NEAR(analytic[i], numeric, 2e-6 * std::max({1.0, std::abs(numeric)}))
          << what << parameter->name << "[" << i << "]";
    }
  }
}

TEST_P(Losses, GradientThroughTheWholeStudentIsThatOfDifferences) {
  Bench bench(block(GetParam()));
  ParameterStore& student = bench.model->parameters();
  ParameterStore& parts = *bench.objective.parts();
  student.zero_grad();
  parts.zero_grad();
  bench.evaluate().total.backward();
  student.finish_grad();
  parts.finish_grad();
  check_parameters(bench, student, 4, "student ");
  check_parameters(bench, parts, 1, "part ");
}

INSTANTIATE_TEST_SUITE_P(Types, Losses, ::testing::ValuesIn(cases()), [](const auto& test) { return test.param.name; });

TEST(LossRegistry, EveryTypeHasACase) {
  for (const std::string& type : loss_types()) {
    bool found = false;
    for (const Case& c : cases()) found = found || c.config.find("\"" + type + "\"") != std::string::npos;
    EXPECT_TRUE(found) << type;
  }
}

TEST(LossRegistry, AdversarialDiscriminatorReversesOnlyTheStudentsGradient) {
  const std::string common = "[[loss]]\ntype = \"discriminator\"\nhidden = [6, 4]\n";
  Bench helping(common), fighting(common + "adversarial = true\nreversal = 2\n");
  for (Bench* bench : {&helping, &fighting}) {
    bench->model->parameters().zero_grad();
    bench->objective.parts()->zero_grad();
    bench->evaluate().total.backward();
    bench->model->parameters().finish_grad();
    bench->objective.parts()->finish_grad();
  }
  const auto gradient = [](Bench& b) { return b.model->parameters().gradients().to_doubles(); };
  const std::vector<double> with = gradient(helping), against = gradient(fighting);
  for (std::size_t i = 0; i < with.size(); ++i) ASSERT_NEAR(against[i], -2 * with[i], 1e-12) << i;
  EXPECT_EQ(helping.objective.parts()->gradients().to_doubles(), fighting.objective.parts()->gradients().to_doubles());
}

TEST(LossRegistry, WhatDoesNotFitIsNamed) {
  const auto error = [](const std::string& loss, const std::string& arch = "resnet8") {
    return error_of([&] { Bench(loss, arch); });
  };
  EXPECT_THAT(error("[[loss]]\ntype = \"attention_transfer\"\ntaps = [\"layer9\"]\n"),
              ::testing::AllOf(HasSubstr("test:"), HasSubstr("no tap \"layer9\""), HasSubstr("layer3")));
  EXPECT_THAT(error("[[loss]]\ntype = \"attention_transfer\"\n", "resnet18"),
              ::testing::AllOf(HasSubstr("resnet18 has 4"), HasSubstr("resnet14 has 3"), HasSubstr("teacher_taps")));
  EXPECT_THAT(error("[[loss]]\ntype = \"fitnet\"\ntaps = [\"pooled\"]\n"), HasSubstr("is a vector"));
  EXPECT_THAT(error("[[loss]]\ntype = \"soft_target\"\n"), HasSubstr("did you mean \"soft_targets\"?"));
  EXPECT_THAT(error("[[loss]]\ntype = \"rkd\"\nweight = nan\n"), HasSubstr("weight"));
}

TEST(LossRegistry, RelationsNeedMoreThanOneSample) {
  const std::string teacher = write_teacher("resnet14", 2);
  for (const std::string type : {"rkd", "similarity_preserving", "pkt", "cc", "distance_metric", "dist"}) {
    const Session session = tiny_session(6);  // batches of 5 and 1
    const DistillConfig config = distill_config_of(
        parse_config_tree("precision = \"f64\"\n[data]\nbatch_size = 5\n[model]\narch = \"resnet8\"\n[[teacher]]\npath "
                          "= \"" +
                              teacher + "\"\n[[loss]]\ntype = \"" + type + "\"\n",
                          "test"),
        "test");
    Teachers teachers(config.teachers, config.combine, config.run, session);
    const auto model = make_network(config.run, session);
    EXPECT_THAT(error_of([&] { DistillObjective(*model, config.students[0], teachers, config, session); }),
                ::testing::AllOf(HasSubstr(type), HasSubstr("at least 2"), HasSubstr("has 1")));
  }
}

const char* const kThreePhases =
    "[train]\nepochs = 3\n[[loss]]\ntype = \"cross_entropy\"\n"
    "[[loss]]\ntype = \"fitnet\"\nschedule = { type = \"from\", epochs = 1 }\n"
    "[[loss]]\ntype = \"soft_targets\"\nschedule = { type = \"until\", epochs = 1 }\n"
    "[[loss]]\ntype = \"fitnet\"\nweight = 0\ntaps = [\"layer3\"]\n";

TEST(InactiveLosses, AreNotComputedAndCountForNothing) {
  Bench bench(kThreePhases), alone("[[loss]]\ntype = \"cross_entropy\"\n[[loss]]\ntype = \"soft_targets\"\n");
  EXPECT_THAT(bench.objective.active(), ::testing::ElementsAre(true, false, true, false));
  const LossTerms terms = bench.evaluate();
  EXPECT_FALSE(terms.values.at(1) || terms.weighted.at(1) || terms.values.at(3) || terms.weighted.at(3));
  EXPECT_EQ(terms.total.item(), alone.evaluate().total.item());

  bench.objective.prepare(1);
  EXPECT_THAT(bench.objective.active(), ::testing::ElementsAre(true, true, false, false));
  bench.taught = bench.teachers.forward(bench.batch.input, 0);
  const LossTerms later = bench.evaluate();
  EXPECT_FALSE(later.values.at(2));
  EXPECT_NEAR(later.values.at(1).item(), reference::fitnet_loss(bench.inputs(), "layer2", true), 1e-10);
}

TEST(InactiveLosses, TeachersGiveWhatActiveOnesAskFor) {
  Bench bench(kThreePhases);
  TeacherBatch taught = bench.teachers.forward(bench.batch.input, 0);
  EXPECT_TRUE(taught.logits(1, 4));
  EXPECT_ANY_THROW(taught.tap(1, "layer2"));
  bench.objective.prepare(2);
  taught = bench.teachers.forward(bench.batch.input, 0);
  EXPECT_TRUE(taught.tap(1, "layer2"));
  EXPECT_ANY_THROW(taught.tap(1, "layer3"));

  Bench labels_last(
      "[train]\nepochs = 2\n[[loss]]\ntype = \"cross_entropy\"\n[[loss]]\ntype = \"soft_targets\"\nschedule = { "
      "type = \"until\", epochs = 1 }\n");
  EXPECT_TRUE(labels_last.teachers.forward(labels_last.batch.input, 0).logits(1, 4));
  labels_last.objective.prepare(1);
  const TeacherBatch none = labels_last.teachers.forward(labels_last.batch.input, 0);
  EXPECT_ANY_THROW(none.logits(1, 4));  // no teacher ran
  labels_last.taught = none;
  EXPECT_TRUE(std::isfinite(labels_last.evaluate().total.item()));
}

TEST(InactiveLosses, TheirPartsAndMomentsRest) {
  for (const auto rule : {OptimizerOptions::Rule::sgd, OptimizerOptions::Rule::adam, OptimizerOptions::Rule::adamw}) {
    Bench bench(kThreePhases);
    ParameterStore& parts = *bench.objective.parts();
    OptimizerOptions options;
    options.rule = rule;
    options.momentum = 0.9;
    options.weight_decay = 0.1;
    options.decay_all = true;
    Optimizer optimizer(parts, options);
    const auto step = [&](int epoch) {
      bench.objective.prepare(epoch);
      optimizer.rest([&](const Parameter& part) { return bench.objective.rests(part); });
      bench.taught = bench.teachers.forward(bench.batch.input, 0);
      parts.zero_grad();
      bench.model->parameters().zero_grad();
      bench.evaluate().total.backward();
      parts.finish_grad();
      optimizer.advance(0.1);
      optimizer.step();
      std::vector<NamedArray> all = parts.to_arrays();
      optimizer.append_state(all);
      std::map<std::string, std::vector<std::byte>> bytes;
      for (NamedArray& array : all) bytes[array.name] = std::move(array.bytes);
      return bytes;
    };
    step(1);
    const auto trained = step(1), rested = step(0), again = step(2);
    for (const auto& [name, bytes] : trained) {
      if (name.ends_with(".step")) continue;
      EXPECT_EQ(bytes, rested.at(name)) << name << " moved while its loss did not count";
      const bool moves = name.find("fitnet.") != std::string::npos && name.find("running_") == std::string::npos &&
                         !name.ends_with("num_batches_tracked");  // the bench leaves statistics as they are
      EXPECT_EQ(bytes != again.at(name), moves) << name;
    }
  }
}

TEST(InactiveLosses, AnEpochWithoutAnyIsRefused) {
  const auto error = [](const std::string& losses) { return error_of([&] { Bench{losses}; }); };
  EXPECT_THAT(error("[train]\nepochs = 3\n[[loss]]\ntype = \"soft_targets\"\nschedule = { type = \"until\", epochs = 2 "
                    "}\n"),
              ::testing::AllOf(HasSubstr("test:"), HasSubstr("weight 0 in epoch 3")));
  EXPECT_THAT(error("[[loss]]\ntype = \"cross_entropy\"\nweight = 0\n"), HasSubstr("weight 0 in epoch 1"));
  EXPECT_THAT(
      error("[train]\nepochs = 2\n[[loss]]\ntype = \"cross_entropy\"\nschedule = { type = \"polynomial\", from = "
            "1, to = 0 }\n"),
      HasSubstr("weight 0 in epoch 2"));
}

TEST(WeightSchedule, FollowsTheEpoch) {
  const auto factors = [](const std::string& table) {
    const ConfigValue tree = parse_config_tree("schedule = " + table, "test");
    ConfigSection section(tree, "[[loss]] 1");
    const WeightSchedule s = read_weight_schedule(section);
    return std::vector<double>{s.factor(0, 10), s.factor(4, 10), s.factor(9, 10)};
  };
  EXPECT_EQ(factors("{ type = \"warmup\", epochs = 5 }"), (std::vector<double>{0.2, 1, 1}));
  EXPECT_EQ(factors("{ type = \"until\", epochs = 4 }"), (std::vector<double>{1, 0, 0}));
  EXPECT_EQ(factors("{ type = \"from\", epochs = 4 }"), (std::vector<double>{0, 1, 1}));
  EXPECT_THAT(factors("{ type = \"polynomial\", power = 2, from = 1, to = 0 }"),
              ::testing::ElementsAre(::testing::DoubleEq(0.99), ::testing::DoubleEq(0.75), 0));
}

}  // namespace
}  // namespace retort
