// Distillations whose losses come and go with the epoch, as a user runs them: what is logged, what moves, and that a
// run taken up again ends where an undisturbed one does.
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// Epochs 1 and 2 learn from a feature map, 3 from labels alone, 4 from logits too: three sets of active losses.
const char* const kComeAndGo = R"(extends = "tiny.cfg"
name = "student"
[train]
label_smoothing = 0
[schedule]
type = "constant"
warmup_epochs = 0
[distill]
teacher_tolerance = 1
gradient_norms_every = 5
[[teacher]]
path = "teachers/tiny"
[[loss]]
type = "cross_entropy"
[[loss]]
type = "fitnet"
weight = 10
schedule = { type = "until", epochs = 2 }
[[loss]]
type = "soft_targets"
schedule = { type = "from", epochs = 3 }
)";

class InactiveLossesOfARun : public test::TinyRunTest {
 protected:
  fs::path config_file() const {
    const fs::path path = folder_ / "student.cfg";
    test::write_file(path, kComeAndGo);
    return path;
  }
  // Of the losses' parts and of their optimizer.
  std::map<std::string, std::vector<std::byte>> parts(const std::string& root) const {
    std::map<std::string, std::vector<std::byte>> bytes;
    for (NamedArray& array : read_safetensors(student_run(root) / "state.safetensors").arrays) {
      if (array.name.starts_with("loss.") && !array.name.ends_with(".step")) bytes[array.name] = std::move(array.bytes);
    }
    return bytes;
  }
};

TEST_F(InactiveLossesOfARun, AreLoggedAsNullAndTheirPartsRestAlsoAcrossAnInterruption) {
  train_whole("teachers");
  const test::ProgramResult whole = call("distill", {config_file().string(), "--set", "output.root=whole"});
  ASSERT_EQ(whole.exit_code, 0) << whole.out << whole.err;
  std::ifstream file(student_run("whole") / "metrics.jsonl");
  int steps = 0, measured = 0;
  for (std::string line; std::getline(file, line);) {
    const auto object = nlohmann::json::parse(line);
    if (object["kind"] == "step") {
      ++steps;
      const int epoch = object["epoch"];
      EXPECT_TRUE(object["terms"]["cross_entropy"].is_number());
      EXPECT_EQ(object["terms"]["fitnet"].is_null(), epoch > 2) << line;
      EXPECT_EQ(object["terms"]["soft_targets"].is_null(), epoch < 4) << line;
      EXPECT_EQ(object["weights"]["fitnet"], epoch > 2 ? 0 : 10);
    } else if (object["kind"] == "gradient_norms") {
      ++measured;
      const int epoch = (object["step"].get<int>() + 4) / 5;
      EXPECT_EQ(object["terms"].contains("fitnet"), epoch <= 2) << line;
      EXPECT_EQ(object["terms"].contains("soft_targets"), epoch == 4) << line;
      EXPECT_GT(object["terms"]["cross_entropy"], 0);
    }
  }
  EXPECT_EQ(steps, 20);
  EXPECT_EQ(measured, 4);

  // Interrupted where the regressor rests, and taken up again.
  const fs::path config = config_file();
  const test::ProgramResult stopped = signal_after("distill", config, "stopped", student_run("stopped"), 12, SIGINT);
  ASSERT_EQ(stopped.exit_code, 130) << stopped.out << stopped.err;
  const auto at_rest = parts("stopped"), at_the_end = parts("whole");
  EXPECT_GE(at_rest.size(), 6u);  // weight, gain and shift, and the momentum of each
  EXPECT_EQ(at_rest, at_the_end);
  const test::ProgramResult resumed = call("distill", {config.string(), "--set", "output.root=stopped", "--resume"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.out << resumed.err;
  expect_same_folders(student_run("whole"), student_run("stopped"));
  EXPECT_EQ(parts("stopped"), at_the_end);
}

}  // namespace
}  // namespace retort
