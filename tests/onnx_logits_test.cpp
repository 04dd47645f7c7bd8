// Logits are logits: a softmax or sigmoid behind the last layer of an ONNX file is seen through whatever else stands
// there, and outputs that are probabilities are known by their numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "distill/output_kind.h"
#include "models/onnx_model.h"
#include "tests/support/onnx_builder.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

using test::OnnxBuilder;
using test::ProgramResult;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Chain = std::vector<std::string>;

constexpr std::int64_t kClasses = 20;

std::vector<float> spread(std::int64_t count, float most) {
  std::mt19937 engine(7);
  std::uniform_real_distribution<float> draw(-most, most);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = draw(engine);
  return values;
}

// Adds one operator behind `x` and returns its result. "Open" and "Close" take trailing axes of extent 1 in and out.
std::string append(OnnxBuilder& b, const std::string& op, const std::string& x) {
  const std::string y = op + std::to_string(b.graph().node_size());
  const auto with_integers = [&](const char* type, const OnnxBuilder::Integers& values) {
    b.integers(y + ".n", values);
    b.node(type, {x, y + ".n"}, {y});
  };
  if (op == "Cast") {
    b.node(op, {x}, {y}).set("to", std::int64_t{1});
  } else if (op == "Open") {
    with_integers("Unsqueeze", {2, 3});
  } else if (op == "Close") {
    with_integers("Squeeze", {2, 3});
  } else if (op == "Reshape") {
    with_integers(op.c_str(), {0, -1});
  } else if (op == "Transpose") {
    b.node(op, {x}, {y}).list("perm", {0, 1, 3, 2});
  } else if (op == "Softmax" || op == "LogSoftmax") {
    b.node(op, {x}, {y}).set("axis", std::int64_t{1});
  } else if (op == "Clip") {
    b.weights(y + ".least", {}, {1e-7F});
    b.node(op, {x, y + ".least"}, {y});
  } else {
    b.node(op, {x}, {y});
  }
  return y;
}

// Images, their means, one linear layer, and what the chain says.
OnnxBuilder network(const Chain& chain, std::int64_t size = 2) {
  OnnxBuilder b;
  b.input("image", {-1, 3, size, size});
  b.node("GlobalAveragePool", {"image"}, {"mean"});
  b.node("Flatten", {"mean"}, {"flat"});
  b.weights("w", {3, kClasses}, spread(3 * kClasses, 8));
  b.weights("b", {kClasses}, spread(kClasses, 1));
  b.node("Gemm", {"flat", "w", "b"}, {"fc"});
  std::string y = "fc";
  for (const std::string& op : chain) y = append(b, op, y);
  b.output(y);
  return b;
}

// A softmax that no operator's name tells.
void hide_softmax(OnnxBuilder& b) {
  b.graph().clear_output();
  b.node("Exp", {"fc"}, {"exponentials"});
  b.integers("axis", {1});
  b.node("ReduceSum", {"exponentials", "axis"}, {"sum"});
  b.node("Div", {"exponentials", "sum"}, {"probabilities"});
  b.output("probabilities");
}

struct Found {
  std::vector<float> logits;
  std::string note;
};

Found found_in(const OnnxBuilder& b) {
  const OnnxModel model(parse_onnx(b.bytes(), "m.onnx"), {});
  EXPECT_EQ(model.spec().classes, kClasses);
  return {model.forward(Tensor::from(spread(2 * 2 * 2 * 3, 1), {2, 2, 2, 3}), {}).logits.to_host<float>(),
          model.note()};
}

TEST(OnnxLogits, AreFoundThroughWhatOnlyMovesThem) {
  const std::vector<float> logits = found_in(network({})).logits;
  const std::vector<std::pair<Chain, std::string>> cases = {
      {{"Softmax"}, "Softmax"},
      {{"Softmax", "Identity"}, "Softmax"},
      {{"LogSoftmax", "Cast", "Dropout"}, "LogSoftmax"},
      {{"Sigmoid", "Reshape"}, "Sigmoid"},
      {{"Reshape", "Softmax", "Flatten", "Identity"}, "Softmax"},
      {{"Open", "Softmax", "Close"}, "Softmax"},
      {{"Open", "Transpose", "Softmax", "Transpose", "Flatten"}, "Softmax"},
      {{"Softmax", "Open", "Sigmoid", "Close"}, "Softmax"},  // twice
      {{"Identity", "Softmax", "Clip", "Identity", "Log"}, "Softmax"},
      {{"LogSoftmax", "Identity", "Exp"}, "LogSoftmax"},
  };
  for (const auto& [chain, op] : cases) {
    const Found found = found_in(network(chain));
    EXPECT_EQ(found.logits, logits) << testing::PrintToString(chain);
    EXPECT_EQ(found.note, "it ends in a " + op + ", whose input are the logits") << testing::PrintToString(chain);
  }
}

TEST(OnnxLogits, AreFoundInAnyOrderOfThese) {
  const std::vector<float> logits = found_in(network({})).logits;
  std::mt19937 engine(3);
  for (int round = 0; round < 20; ++round) {
    Chain chain = {"Identity", "Cast", "Dropout", "Transpose", "Identity"};
    chain.push_back(std::vector<std::string>{"Softmax", "LogSoftmax", "Sigmoid"}[engine() % 3]);
    std::shuffle(chain.begin(), chain.end(), engine);
    chain.insert(chain.begin(), "Open");
    chain.push_back(engine() % 2 == 0 ? "Flatten" : "Close");
    EXPECT_EQ(found_in(network(chain)).logits, logits) << testing::PrintToString(chain);
  }
}

TEST(OnnxLogits, AreNotSoughtBehindArithmetic) {
  for (const Chain& chain : {Chain{"Softmax", "Neg"}, Chain{"Softmax", "Exp"}, Chain{"Exp"}, Chain{"Clip"}}) {
    const Found found = found_in(network(chain));
    EXPECT_EQ(found.note, "") << testing::PrintToString(chain);
    EXPECT_NE(found.logits, found_in(network({})).logits) << testing::PrintToString(chain);
  }
}

// The shape of the result may be computed from the probabilities.
TEST(OnnxLogits, AreFoundWhereAShapeDependsOnThem) {
  OnnxBuilder b = network({"Softmax"});
  const std::string softmax = b.graph().output(0).name();
  b.graph().clear_output();
  b.node("Shape", {softmax}, {"shape"});
  b.node("Reshape", {softmax, "shape"}, {"same"});
  b.output("same");
  EXPECT_EQ(found_in(b).logits, found_in(network({})).logits);
}

TEST(OnnxLogits, AreTheFirstOutputOfFloatingNumbers) {
  OnnxBuilder b = network({"Softmax"});
  const std::string softmax = b.graph().output(0).name();
  b.graph().clear_output();
  b.node("ArgMax", {softmax}, {"label"});  // which is not read, and need not be
  b.output("label");
  b.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->set_elem_type(::onnx::TensorProto::INT64);
  b.output(softmax);
  const Found found = found_in(b);
  EXPECT_EQ(found.logits, found_in(network({})).logits);
  EXPECT_THAT(found.note, AllOf(HasSubstr("output \"" + softmax + "\""), HasSubstr("Softmax")));
}

TEST(OutputKind, IsToldByAllRows) {
  const auto kind = [](const std::vector<float>& rows, std::int64_t classes = 2, DType dtype = DType::f32) {
    return output_kind(rows, classes, dtype);
  };
  EXPECT_EQ(kind({0.25F, 0.75F, 1, 0}), OutputKind::probabilities);
  EXPECT_EQ(kind({0.25F, 0.75F, 2, -1}), OutputKind::logits);
  EXPECT_EQ(kind({0.25F, 0.75F, 0.5F, 0.6F}), OutputKind::scores);
  EXPECT_EQ(kind({std::log(0.25F), std::log(0.75F)}), OutputKind::log_probabilities);
  EXPECT_EQ(kind({-1, -2}), OutputKind::logits);
  EXPECT_EQ(kind({NAN, 1}), OutputKind::logits);
  EXPECT_EQ(kind({1, 1}, 1), OutputKind::logits);
  EXPECT_EQ(kind({}), OutputKind::logits);
  // bf16 has three digits.
  EXPECT_EQ(kind({0.25F, 0.755F}), OutputKind::scores);
  EXPECT_EQ(kind({0.25F, 0.755F}, 2, DType::bf16), OutputKind::probabilities);
}

TEST(OutputKind, ProbabilitiesBecomeLogitsOfTheSameSoftmax) {
  const Tensor p = Tensor::from(std::vector<float>{0.25F, 0.75F, 1, 0}, {2, 2});
  const std::vector<float> logits = as_logits(OutputKind::probabilities, p).to_host<float>();
  EXPECT_FLOAT_EQ(logits[0], std::log(0.25F));
  EXPECT_FLOAT_EQ(logits[1], std::log(0.75F));
  EXPECT_EQ(logits[2], 0);
  EXPECT_NEAR(logits[3], -87.3365, 1e-3);
  for (const OutputKind kind : {OutputKind::logits, OutputKind::scores, OutputKind::log_probabilities}) {
    EXPECT_EQ(as_logits(kind, p).to_host<float>(), p.to_host<float>());
  }
}

// The programs on a network whose softmax is written out: loss, calibration and certainty are those of its logits.
class ProbabilityPrograms : public test::TinyRunTest {
 protected:
  void SetUp() override {
    test::TinyRunTest::SetUp();
    test::write_file(folder_ / "logits.onnx", network({}, 32).bytes());
    OnnxBuilder hidden = network({}, 32);
    hide_softmax(hidden);
    test::write_file(folder_ / "hidden.onnx", hidden.bytes());
    OnnxBuilder logarithms = hidden;
    logarithms.node("Log", {"probabilities"}, {"logarithms"});
    logarithms.graph().mutable_output(0)->set_name("logarithms");
    test::write_file(folder_ / "logarithms.onnx", logarithms.bytes());
    OnnxBuilder scores = network({"Sigmoid", "Neg", "Neg"}, 32);
    test::write_file(folder_ / "scores.onnx", scores.bytes());
  }

  nlohmann::json evaluated(const std::string& file, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments{file,         "--data", "shapes",   "--normalize", "cifar100",
                                       "--no-speed", "--json", "--device", "cpu"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = call("evaluate", arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out);
  }
};

TEST_F(ProbabilityPrograms, EvaluateMeasuresWhatTheSoftmaxWasGiven) {
  const nlohmann::json logits = evaluated("logits.onnx");
  EXPECT_FALSE(logits.contains("note"));
  for (const char* file : {"hidden.onnx", "logarithms.onnx"}) {
    const nlohmann::json other = evaluated(file);
    EXPECT_NEAR(other["loss"].get<double>(), logits["loss"].get<double>(), 1e-4) << file;
    EXPECT_NEAR(other["expected_calibration_error"].get<double>(), logits["expected_calibration_error"].get<double>(),
                1e-4);
    EXPECT_EQ(other["top1"], logits["top1"]);
    EXPECT_THAT(other["note"].get<std::string>(), HasSubstr("probabilities"));
  }
  EXPECT_THAT(evaluated("scores.onnx")["note"].get<std::string>(), HasSubstr("without adding up to 1"));
  const nlohmann::json compared =
      evaluated("logits.onnx", {"--teacher", "hidden.onnx", "--teacher-normalize", "cifar100"});
  EXPECT_EQ(compared["teacher"]["agreement"], 1);
  EXPECT_NEAR(compared["teacher"]["loss"].get<double>(), logits["loss"].get<double>(), 1e-4);
  EXPECT_THAT(compared["teacher"]["note"].get<std::string>(), HasSubstr("probabilities"));
}

TEST_F(ProbabilityPrograms, PredictIsAsCertainAsTheSoftmax) {
  const std::string photo = std::filesystem::absolute("tests/fixtures/images/rgb.png").string();
  const auto predicted = [&](const std::string& file) {
    const ProgramResult result = call("predict", {file, photo, "--normalize", "cifar100", "--csv", "out.csv"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return std::pair(test::read_file(folder_ / "out.csv"), result.out);
  };
  const auto [logits, plain] = predicted("logits.onnx");
  const auto [hidden, noted] = predicted("hidden.onnx");
  EXPECT_EQ(hidden, logits);
  EXPECT_THAT(plain, Not(HasSubstr("probabilities")));
  EXPECT_THAT(noted, HasSubstr("probabilities"));
}

TEST_F(ProbabilityPrograms, DistillTeachesTheSoftmaxAndSaysSo) {
  const std::filesystem::path config = folder_ / "student.cfg";
  const auto teacher_line = [&](const std::string& file, const std::vector<std::string>& more) {
    test::write_file(config,
                     "extends = \"tiny.cfg\"\nname = \"student\"\n[train]\nmax_steps = 2\nevaluate_test = "
                     "false\nlabel_smoothing = 0\n[data]\nnormalize = \"cifar100\"\n[[teacher]]\npath = \"" +
                         file + "\"\n[[loss]]\ntype = \"soft_targets\"\n");
    std::vector<std::string> arguments{config.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return call("distill", arguments);
  };
  // Nothing records how good it should be: chance counts, and the tolerance does too.
  const ProgramResult refused = teacher_line("logits.onnx", {});
  expect_error(refused, AllOf(HasSubstr("chance alone would be right on 5.00 %"), HasSubstr("teacher_tolerance = ")));
  const std::string advice = "teacher_tolerance = ";
  const std::string enough = refused.err.substr(refused.err.find(advice) + advice.size(), 4);
  const ProgramResult logits = teacher_line("logits.onnx", {"--set", "distill.teacher_tolerance=" + enough});
  const ProgramResult hidden = teacher_line("hidden.onnx", {"--set", "distill.teacher_tolerance=" + enough});
  ASSERT_EQ(logits.exit_code, 0) << logits.err;
  ASSERT_EQ(hidden.exit_code, 0) << hidden.err;
  const auto loss = [](const ProgramResult& result) {
    return result.out.substr(result.out.find("validation loss"), 23);
  };
  EXPECT_EQ(loss(logits), loss(hidden));
  EXPECT_THAT(logits.out, Not(HasSubstr("probabilities")));
  EXPECT_THAT(hidden.out, HasSubstr("its outputs are probabilities"));
}

}  // namespace
}  // namespace retort
