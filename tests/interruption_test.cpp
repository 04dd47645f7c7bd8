// A run that is cut anywhere - at a step, in a validation, in a test - and resumed ends as one that was left alone.
#include <algorithm>

#include "engine/ops.h"
#include "engine/safetensors.h"
#include "tests/support/program_test.h"
#include "tests/support/tiny_training.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::Killed;
using test::logged_lines;
using test::read_file;
using test::TinyTraining;

constexpr const char* kStudents = R"([[teacher]]
path = "teacher"
[[student]]
name = "kd"
[[student.loss]]
type = "soft_targets"
[[student.loss]]
type = "fitnet"
[[student]]
name = "plain"
[[student.loss]]
type = "cross_entropy"
)";

class Interruption : public test::ProgramTest {
 protected:
  // As expect_same_folders, and what run.json says; the times apart.
  static void expect_same(TinyTraining& training, const std::vector<std::string>& students, const std::string& root) {
    for (const std::string& student : students) {
      expect_same_folders(training.folder("whole", student), training.folder(root, student));
    }
    const auto facts = [&](const std::string& of) {
      nlohmann::json info = training.info(of);
      for (const char* time : {"started", "seconds"}) info.erase(time);
      return info;
    };
    EXPECT_EQ(facts("whole"), facts(root));
    EXPECT_EQ(facts(root)["state"], "finished");
  }

  // Cuts the run at every question whether to stop, in one way or the other, and resumes. Returns how many there are.
  int cut_everywhere(const std::string& config, const std::vector<std::string>& students, bool kill) {
    TinyTraining training(home_.path(), config);
    EXPECT_TRUE(training.run("whole").finished);
    for (int cut = 1;; ++cut) {
      const std::string root = (kill ? "kill" : "stop") + std::to_string(cut);
      SCOPED_TRACE(root);
      int asked = 0;
      training.stop_requested = [&] {
        if (++asked < cut) return false;
        if (kill) throw Killed();
        return true;
      };
      bool finished = false;
      try {
        finished = training.run(root).finished;
      } catch (const Killed&) {
      }
      if (finished) {
        expect_same(training, students, root);
        return cut - 1;
      }
      EXPECT_EQ(training.info(root)["state"], kill ? "running" : "interrupted");
      training.stop_requested = {};
      if (fs::exists(training.folder(root) + "/state.safetensors")) {
        EXPECT_TRUE(training.run(root, true).finished);
        expect_same(training, students, root);
      } else {
        EXPECT_TRUE(kill && cut == 1);
      }
      if (HasFailure()) return -1;
      fs::remove_all(folder_ / root);
    }
  }
};

// 17 images in batches of 6: three steps an epoch.
TEST_F(Interruption, OfTrainingAnywhereChangesNothing) {
  EXPECT_EQ(cut_everywhere("[train]\nepochs = 3\n", {""}, false), 3 * 3 + 3 + 2);
}

TEST_F(Interruption, OfTwoStudentsAnywhereChangesNothing) {
  const int tests = 1 + 2 * 2;  // the teacher, and two checkpoints of two students
  EXPECT_EQ(cut_everywhere(std::string("[train]\nepochs = 2\n") + kStudents, {"kd", "plain"}, false),
            2 * 3 + 2 * 2 + tests);
}

TEST_F(Interruption, AtTheLastOfTheStepsChangesNothing) {
  EXPECT_EQ(cut_everywhere("[train]\nepochs = 9\nmax_steps = 5\n", {""}, false), 5 + 2 + 2);
}

TEST_F(Interruption, WithRareValidationsChangesNothing) {
  EXPECT_EQ(cut_everywhere("[train]\nepochs = 3\nevaluate_every = 2\n", {""}, false), 3 * 3 + 2 + 2);
}

TEST_F(Interruption, BeforeAndAfterAnEarlyStopChangesNothing) {
  cut_everywhere("[train]\nepochs = 12\nearly_stop_patience = 1\n", {""}, false);
}

// With a state behind every step, what a killed process loses is the work in progress.
TEST_F(Interruption, ByAKillAnywhereChangesNothing) {
  EXPECT_EQ(cut_everywhere("[train]\nepochs = 2\ncheckpoint_minutes = 1e-9\n", {""}, true), 2 * 3 + 2 + 2);
}

TEST_F(Interruption, ByAKillOfTwoStudentsChangesNothing) {
  const std::string config = std::string("[train]\nepochs = 2\ncheckpoint_minutes = 1e-9\n") + kStudents;
  EXPECT_GT(cut_everywhere(config, {"kd", "plain"}, true), 10);
}

TEST_F(Interruption, CheckpointMinutesSayHowOftenTheStateIsSaved) {
  for (const auto& [minutes, saved] : {std::pair{"0", false}, {"10", false}, {"1e-9", true}}) {
    TinyTraining training(home_.path(), std::string("[train]\ncheckpoint_minutes = ") + minutes + "\n");
    int asked = 0;
    training.stop_requested = [&]() -> bool {
      if (++asked == 3) throw Killed();
      return false;
    };
    EXPECT_THROW(training.run(minutes), Killed);
    EXPECT_EQ(fs::exists(training.folder(minutes) + "/state.safetensors"), saved) << minutes;
  }
}

TEST_F(Interruption, TheBestCheckpointIsTestedOnItsOwnWeights) {
  TinyTraining training(home_.path(), "[train]\nepochs = 6\n");
  const TrainSummary summary = training.run("whole");
  for (const char* name : {"last", "best"}) {
    const auto model = make_model({.arch = "resnet8", .classes = training.session.classes});
    model->parameters().materialize({}, DType::f32, 9);
    load_weights(*model, training.folder("whole") + "/" + name + ".safetensors");
    const Metrics m =
        evaluate(*model, training.session.test_data, training.session.test, training.session.evaluate_options());
    const LearnerResult& result = summary.learners.at(0);
    EXPECT_EQ(m.loss, (std::string(name) == "last" ? result.test_last : result.test_best)->loss) << name;
  }
  EXPECT_NE(summary.learners[0].test_last->loss, summary.learners[0].test_best->loss) << "they should differ here";

  // Another program's file in its place is not measured under its name, where the tests are yet to come.
  const std::string info = training.folder("whole") + "/run.json";
  const std::string text = read_file(info), finished = "\"state\": \"finished\"";
  ASSERT_NE(text.find(finished), std::string::npos);
  test::write_file(info, std::string(text).replace(text.find(finished), finished.size(), "\"state\": \"running\""));
  const std::string best = training.folder("whole") + "/best.safetensors";
  fs::copy_file(training.folder("whole") + "/last.safetensors", best, fs::copy_options::overwrite_existing);
  EXPECT_THAT(test::error_of([&] { training.run("whole", true); }),
              ::testing::HasSubstr("best.safetensors: is of epoch 6"));
}

// A loss with a memory and nothing to train: a running mean of the cross-entropy, which also weighs it.
class RememberingObjective final : public Objective {
 public:
  explicit RememberingObjective(const Model& model)
      : inner_(model, 0), mean_(parts_.buffer("mean", {1}, DType::f32, 1)) {
    parts_.materialize({}, DType::f32, 1);
  }
  std::vector<std::string> names() const override { return inner_.names(); }
  ParameterStore* parts() override { return &parts_; }
  LossTerms evaluate(const StepInputs& inputs) override {
    LossTerms terms = inner_.evaluate(inputs);
    const auto mean = static_cast<float>(0.5 * (mean_->value.item() + terms.values[0].item()));
    mean_->value.copy_from_host(&mean);
    terms.total = scale_by(terms.total, mean_->value);
    return terms;
  }

 private:
  CrossEntropyObjective inner_;
  ParameterStore parts_;
  std::shared_ptr<Buffer> mean_;
};

TEST_F(Interruption, TheMemoryOfALossIsResumed) {
  TinyTraining training(home_.path(), "[train]\nepochs = 2\n");
  training.objective = [](const Model& model) { return std::make_unique<RememberingObjective>(model); };
  EXPECT_TRUE(training.run("whole").finished);
  int asked = 0;
  training.stop_requested = [&] { return ++asked == 2; };
  EXPECT_FALSE(training.run("cut").finished);
  EXPECT_NE(read_safetensors(training.folder("cut") + "/state.safetensors").find("loss.mean"), nullptr);
  training.stop_requested = {};
  EXPECT_TRUE(training.run("cut", true).finished);
  expect_same(training, {""}, "cut");
}

}  // namespace
}  // namespace retort
