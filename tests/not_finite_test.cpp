// NaN and infinity, wherever they come up in a run: an error that names the tensor, a run that has failed, and files that
// are as they were.
#include <cmath>
#include <limits>

#include "distill/report.h"
#include "engine/ops.h"
#include "tests/support/program_test.h"
#include "tests/support/tiny_training.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::read_file;
using test::TinyTraining;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void set_first(const Tensor& tensor, float value) {
  std::vector<float> values = tensor.to_host<float>();
  values[0] = value;
  tensor.copy_from_host(values.data());
}

class NotFinite : public test::ProgramTest {
 protected:
  // What the run of two epochs of three steps says where `touch` has had the network behind step `step`, or with `tested`
  // behind its epoch's end.
  std::string failure(int step, const std::function<void(Learner&)>& touch, bool tested = false) {
    fs::remove_all(folder_ / "run");
    TinyTraining training(home_.path(), "[train]\nepochs = 2\n");
    bool touched = false;
    std::string before;
    training.stop_requested = [&] {
      Learner& learner = training.learners->at(0);
      if (!touched && learner.optimizer->steps() == step && (learner.state.samples == 0) == tested) {
        touched = true;
        before = files(training);
        touch(learner);
      }
      return false;
    };
    const std::string error = error_of([&] { training.run("run"); });
    EXPECT_TRUE(touched);
    EXPECT_TRUE(before == files(training)) << "a file has been replaced";
    EXPECT_EQ(training.info("run")["state"], "failed");
    EXPECT_EQ(training.info("run")["error"], error);
    return error;
  }

  static std::string files(const TinyTraining& training) {
    std::string all;
    for (const char* name : {"best", "last", "state"}) {
      const std::string path = training.folder("run") + "/" + name + ".safetensors";
      all += fs::exists(path) ? read_file(path) : "none";
    }
    return all;
  }
};

TEST_F(NotFinite, WeightsOfTheLastStepAreNotSaved) {
  EXPECT_THAT(
      failure(6, [](Learner& l) { set_first(l.model->parameters().parameters()[3]->value, kNan); }),
      AllOf(HasSubstr("after step 6 the parameter "), HasSubstr("not saved"), HasSubstr("checkpoints are kept")));
}

TEST_F(NotFinite, StatisticsOfTheLastStepAreNotSaved) {
  EXPECT_THAT(failure(3, [](Learner& l) { set_first(l.model->parameters().buffers()[1]->value, kInfinity); }),
              AllOf(HasSubstr("after step 3 the buffer "), HasSubstr("running_var"), HasSubstr("No checkpoint")));
}

TEST_F(NotFinite, StepsNameTheTensor) {
  EXPECT_THAT(failure(4, [](Learner& l) { set_first(l.model->parameters().parameters()[0]->value, kNan); }),
              AllOf(HasSubstr("step 5 is not finite (nan)"), HasSubstr("first bad: parameter conv1.weight")));
}

// Finite weights and statistics, which overflow where the statistics are used, as in training they are not.
TEST_F(NotFinite, LogitsInValidationEndTheRun) {
  const auto touch = [](Learner& l) {
    for (const auto& buffer : l.model->parameters().buffers()) {
      if (buffer->name == "bn1.running_mean") set_first(buffer->value, -3e38f);
      if (buffer->name == "bn1.running_var") set_first(buffer->value, 0);
    }
  };
  EXPECT_THAT(failure(6, touch),
              AllOf(HasSubstr("after step 6 the loss on the validation images"), HasSubstr("first bad: ")));
}

TEST_F(NotFinite, LogitsInTheTestEndTheRun) {
  const auto touch = [](Learner& l) { set_first(l.model->parameters().parameters()[0]->value, kNan); };
  EXPECT_THAT(failure(6, touch, true),
              AllOf(HasSubstr("last checkpoint on the test images"), HasSubstr("first bad: parameter conv1.weight")));
}

// A class that is ruled out altogether: the loss stays finite.
TEST_F(NotFinite, ALogitOfMinusInfinityCountsWhateverTheLossSays) {
  const TinyTraining training(home_.path(), "");
  const Session& session = training.session;
  const Metrics m = evaluate(
      [&](const Tensor& input) {
        std::vector<float> logits(static_cast<std::size_t>(input.dim(0) * session.classes), 0.0f);
        const std::vector<std::int32_t> labels = session.train_data.labels.to_host<std::int32_t>();
        logits[static_cast<std::size_t>((labels[0] + 1) % session.classes)] = -kInfinity;
        return Tensor::from<float>(logits, {input.dim(0), session.classes});
      },
      session.train_data, session.train, session.evaluate_options());
  EXPECT_TRUE(std::isfinite(m.loss));
  EXPECT_EQ(m.nonfinite, 1);
  EXPECT_FALSE(all_finite(m));
}

// As cross-entropy, with such a logit shown to the metrics at the third step.
class RulingOut final : public Objective {
 public:
  explicit RulingOut(const Model& model) : inner_(model, 0) {}
  std::vector<std::string> names() const override { return inner_.names(); }
  LossTerms evaluate(const StepInputs& inputs) override {
    LossTerms terms = inner_.evaluate(inputs);
    if (++steps_ == 3) {
      const std::int32_t label = inputs.batch.labels.to_host<std::int32_t>()[0];
      terms.logits = terms.logits.clone();
      std::vector<float> values = terms.logits.to_host<float>();
      values[label == 0 ? 1 : 0] = -kInfinity;
      terms.logits.copy_from_host(values.data());
    }
    return terms;
  }

 private:
  CrossEntropyObjective inner_;
  int steps_ = 0;
};

TEST_F(NotFinite, ALogitOfAStepCountsWhateverTheLossSays) {
  TinyTraining training(home_.path(), "[train]\nepochs = 2\n");
  training.objective = [](const Model& model) { return std::make_unique<RulingOut>(model); };
  EXPECT_THAT(error_of([&] { training.run("run"); }), HasSubstr("1 logits of step 3 are not finite"));
  EXPECT_EQ(training.info("run")["state"], "failed");
  EXPECT_FALSE(fs::exists(training.folder("run") + "/best.safetensors"));
}

TEST_F(NotFinite, ARunThatFailedCanBeResumedAndIsNoBaseline) {
  TinyTraining training(home_.path(), "[train]\nepochs = 2\n");
  EXPECT_TRUE(training.run("whole").finished);
  training.stop_requested = [&] {
    Learner& learner = training.learners->at(0);
    if (learner.optimizer->steps() == 5) set_first(learner.model->parameters().parameters()[0]->value, kNan);
    return false;
  };
  error_of([&] { training.run("run"); });
  StudentConfig student;
  student.train = load_train_config(training.folder("run") + "/config.cfg");
  EXPECT_FALSE(find_baseline(student, "")) << "though it has a best checkpoint";
  training.stop_requested = {};
  EXPECT_TRUE(training.run("run", true).finished);
  EXPECT_TRUE(find_baseline(student, ""));
  EXPECT_FALSE(training.info("run").contains("error"));
  expect_same_folders(training.folder("whole"), training.folder("run"));
}

}  // namespace
}  // namespace retort
