// Going on with a run as a user does: what may have changed, what is refused, and what the programs say to do.
#include <signal.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/safetensors.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::program_path;
using test::read_file;
using test::write_file;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Result = test::ProgramResult;

class Resumption : public test::TinyRunTest {
 protected:
  void SetUp() override { write_file(config(), std::string(test::kTinyConfig) + "evaluate_test = false\n"); }

  static constexpr const char* kConstant = "schedule.type=constant";

  nlohmann::json info(const fs::path& version) const { return nlohmann::json::parse(read_file(version / "run.json")); }

  // Everything that a run has written.
  std::map<std::string, std::string> files_of(const fs::path& version) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(version)) {
      if (entry.is_regular_file()) files[entry.path().string()] = read_file(entry.path());
    }
    return files;
  }

  // The command that an interrupted run printed.
  static std::string advice(const Result& interrupted) {
    const std::string before = "to go on: ";
    const std::size_t at = interrupted.out.find(before);
    EXPECT_NE(at, std::string::npos) << interrupted.out;
    return interrupted.out.substr(at + before.size(), interrupted.out.find('\n', at) - at - before.size());
  }

  Result interrupt(const std::string& program, std::vector<std::string> arguments, const fs::path& logged) {
    const pid_t child = start(program, arguments);
    while (test::steps_logged(logged) < 7 && !HasFailure()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    kill(child, SIGINT);
    return wait(child);
  }
};

TEST_F(Resumption, OtherConfigsAreRefusedByNameBeforeAnythingIsTouched) {
  ASSERT_EQ(train_and_signal("runs", 7, SIGINT).exit_code, 130);
  const auto before = files_of(run("runs"));
  const std::string version = run("runs").lexically_relative(folder_).string();
  const std::map<std::string, std::string> refused = {
      {"seed=7", "seed: 5, now 7"},
      {"data.batch_size=32", "data.batch_size: 64, now 32"},
      {"data.validation=200", "data.validation: 100, now 200"},
      {"data.fraction=0.5", "data.fraction: 0.0164, now 0.5"},
      {"data.augment=[]", "data.augment.0.name: \"flip\", now nothing"},
      {"data.dataset=cifar100", "data.dataset: \"shapes\", now \"cifar100\""},  // which is not there
      {"data.normalize=cifar10", "data.normalize: \"imagenet\", now \"cifar10\""},
      {"model.arch=resnet14", "model.arch: \"resnet8\", now \"resnet14\""},
      {"model.init=nowhere.pth", "model.init: \"\", now \"nowhere.pth\""},
      {"optimizer.lr=0.1", "optimizer.lr: 0.05, now 0.1"},
      {"schedule.type=constant", "schedule.type: \"cosine\", now \"constant\""},
      {"precision=f64", "precision: \"f32\", now \"f64\""},
      {"strict_math=true", "strict_math: false, now true"},
      {"train.label_smoothing=0", "train.label_smoothing: 0.1, now 0"},
      {"train.epochs=1", "train.epochs: 4, now 1, but epoch 2 has begun"},
      {"train.max_steps=6", "train.max_steps: 0, now 6, but step "},
  };
  bool by_folder = false;
  for (const auto& [setting, text] : refused) {
    by_folder = !by_folder;
    expect_error(call("train", {by_folder ? version : config().string(), "--resume", "--set", setting}),
                 AllOf(HasSubstr(version + "/state.safetensors: "), HasSubstr(text),
                       HasSubstr("To go on as it was: " + program_path("train") + " " + version + " --resume. ")));
  }
  write_file(folder_ / "other.cfg", "name = \"tiny\"\n[data]\ndataset = \"shapes\"\n");
  expect_error(call("train", {"other.cfg", "--resume"}),
               AllOf(HasSubstr("data.fraction"), HasSubstr("; and 4 more. ")));
  expect_error(train({"--resume", "--set", "seed=7", "--set", "optimizer.lr=0.1"}),
               HasSubstr("optimizer.lr: 0.05, now 0.1; seed: 5, now 7."));
  fs::rename(run("runs") / "config.cfg", folder_ / "kept.cfg");
  expect_error(call("train", {version, "--resume"}), HasSubstr(version + "/config.cfg: is not there"));
  fs::rename(folder_ / "kept.cfg", run("runs") / "config.cfg");
  EXPECT_EQ(files_of(run("runs")), before);

  // What does not touch the training goes on, and the log says so.
  const Result other = train({"--resume", "--set", "train.evaluate_every=2", "--set", "train.early_stop_patience=9",
                              "--set", "train.evaluate_test=true", "--set", "device=auto"});
  ASSERT_EQ(other.exit_code, 0) << other.err;
  EXPECT_THAT(read_file(run("runs") / "log.txt"),
              AllOf(HasSubstr("\n  train.evaluate_every: 1, now 2\n"), HasSubstr("train.early_stop_patience: 0, now 9"),
                    HasSubstr("train.evaluate_test: false, now true"), HasSubstr("device: \"cpu\", now \"auto\"")));
  train_whole("whole");
  EXPECT_TRUE(read_file(run("whole") / "last.safetensors") == read_file(run("runs") / "last.safetensors"));
}

TEST_F(Resumption, ThePrintedLineGoesOnWithTheSameSettings) {
  const fs::path logged = folder_ / "my runs/it's/tiny/v1";
  const Result cut = interrupt(
      "train",
      {config().string(), "--set", "output.root=my runs/it's", "--set", "optimizer.lr=0.2", "--set", kConstant},
      logged);
  EXPECT_EQ(advice(cut), program_path("train") + " 'my runs/it'\\''s/tiny/v1' --resume");
  const Result resumed = call("/bin/sh", {"-c", advice(cut) + " --set train.epochs=5"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(test::steps_logged(logged), 25U);
  for (const std::string& line : test::logged_lines(logged)) {
    const auto object = nlohmann::json::parse(line);
    const bool warm = object["kind"] == "step" && object["step"] >= 5;
    EXPECT_TRUE(!warm || object["lr"] == 0.2) << line;
  }
}

TEST_F(Resumption, ARunIsNamedByFolderVersionOrName) {
  ASSERT_EQ(train({"--set", "train.epochs=1"}).exit_code, 0);
  fs::create_directories(run("runs", 2));  // died before it saved anything
  fs::copy_file(run("runs") / "config.cfg", run("runs", 2) / "config.cfg");
  write_file(run("runs", 2) / "run.json", "{}");
  const std::string finished = "runs/tiny/v1: is finished, after 5 steps; to train longer: ";
  for (const std::string named :
       {"runs/tiny", "runs/tiny/", "runs/tiny/v1", "tiny", "tiny/v1", "runs/tiny/v1/config.cfg"}) {
    const Result result = call("train", {named, "--resume"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr(finished)) << named;
    EXPECT_THAT(result.out, HasSubstr("--resume --set train.epochs=2\n")) << named;
  }
  EXPECT_THAT(train({"--resume", "--set", "train.epochs=1"}).out, HasSubstr(finished));
  expect_error(call("train", {"runs/tiny/v2", "--resume"}),
               AllOf(HasSubstr("runs/tiny/v2/state.safetensors: is not there"), HasSubstr("without --resume")));
  expect_error(call("train", {"tiny", "--resume", "--version", "2"}), HasSubstr("runs/tiny/v2/state.safetensors"));
  expect_error(call("train", {"tiny", "--resume", "--version", "3"}), HasSubstr("no version 3"));
  expect_error(call("train", {"tiny/v1", "--resume", "--version", "2"}), HasSubstr("--version 2: "));
  expect_error(call("train", {"tiny", "--resume", "--set", "name=other"}), HasSubstr("--set name: "));
  expect_error(call("train", {"tinny", "--resume"}), AllOf(HasSubstr("tinny"), HasSubstr("./runs")));
  expect_error(call("train", {"tiny", "--resume", "--set", "optimizer.lr=1"}), HasSubstr("optimizer.lr: 0.05, now 1"));
  for (const std::string named : {"runs/tiny", "tiny"}) {
    expect_error(call("train", {named}), AllOf(HasSubstr(program_path("train") + " runs/tiny --resume; "),
                                               HasSubstr("runs/tiny/v1/config.cfg")));
  }
  expect_error(call("distill", {"tiny", "--resume"}), HasSubstr("to go on with it: " + program_path("train") + " "));
  expect_error(call("train", {"runs", "--resume"}), HasSubstr("runs: is a folder"));

  // Longer, from wherever it has been moved to.
  fs::rename(folder_ / "runs", folder_ / "kept");
  const Result longer = call("train", {"kept/tiny", "--resume", "--set", "train.epochs=2"});
  ASSERT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_THAT(longer.out, AllOf(HasSubstr("this is v1, the newest version with a state; v2 has none"),
                                HasSubstr("train.epochs: 1, now 2; the schedule follows the new length")));
  EXPECT_EQ(test::steps_logged(run("kept")), 10U);
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(Resumption, ALongerRunEqualsOneThatWasPlannedSo) {
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--set", kConstant});
    const Result result = train(more);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  };
  with({"--set", "output.root=whole", "--set", "train.epochs=3"});
  // Ended after an epoch, and within one.
  with({"--set", "output.root=epochs", "--set", "train.epochs=2"});
  with({"--resume", "--set", "output.root=epochs", "--set", "train.epochs=3"});
  expect_same_results("whole", "epochs");
  with({"--set", "output.root=steps", "--set", "train.epochs=3", "--set", "train.max_steps=7"});
  with({"--resume", "--set", "output.root=steps", "--set", "train.epochs=3", "--set", "train.max_steps=12"});
  with({"--resume", "--set", "output.root=steps", "--set", "train.epochs=3"});
  EXPECT_EQ(test::logged_lines(run("whole")), test::logged_lines(run("steps")));
  EXPECT_TRUE(read_file(run("whole") / "last.safetensors") == read_file(run("steps") / "last.safetensors"));

  // What trained which steps.
  const auto stretches = info(run("steps"))["stretches"];
  EXPECT_EQ(stretches, nlohmann::json::parse(R"([{"config": "config.1.cfg", "first_step": 1, "last_step": 7},
                                                 {"config": "config.2.cfg", "first_step": 8, "last_step": 12},
                                                 {"config": "config.cfg", "first_step": 13}])"));
  EXPECT_THAT(read_file(run("steps") / "config.1.cfg"), HasSubstr("max_steps = 7\n"));
  EXPECT_THAT(read_file(run("steps") / "config.2.cfg"), HasSubstr("max_steps = 12\n"));
  EXPECT_THAT(read_file(run("steps") / "config.cfg"), HasSubstr("max_steps = 0\n"));
  EXPECT_EQ(info(run("whole"))["stretches"], nlohmann::json::parse(R"([{"config": "config.cfg", "first_step": 1}])"));
}

TEST_F(Resumption, AStretchThatSavedNothingLeavesNoTrace) {
  ASSERT_EQ(train({"--set", "train.epochs=1"}).exit_code, 0);
  const pid_t child = start("train", {"tiny", "--resume", "--set", "train.epochs=9"});
  while (test::steps_logged(run("runs")) < 6) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill(child, SIGKILL);
  wait(child);
  ASSERT_EQ(info(run("runs"))["stretches"].size(), 2U);
  // The run's own config is that of the last session; the state is still the first one's.
  const Result resumed = call("train", {"tiny", "--resume", "--set", "train.epochs=2"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, HasSubstr("train.epochs: 1, now 2"));
  EXPECT_EQ(info(run("runs"))["stretches"],
            nlohmann::json::parse(R"([{"config": "config.1.cfg", "first_step": 1, "last_step": 5},
                                      {"config": "config.cfg", "first_step": 6}])"));
}

TEST_F(Resumption, AnEarlyStopIsLiftedByItsOwnKey) {
  // At this rate nothing is ever better than the first epoch.
  const Result stopped = train({"--set", "optimizer.lr=1e-9", "--set", "train.early_stop_patience=1"});
  ASSERT_EQ(stopped.exit_code, 0) << stopped.err;
  ASSERT_THAT(stopped.out, HasSubstr("stopping early"));
  EXPECT_THAT(call("train", {"tiny", "--resume"}).out,
              AllOf(HasSubstr("is finished, after 10 steps and an early stop"), HasSubstr("early_stop_patience=0")));
  expect_error(call("train", {"tiny", "--resume", "--set", "train.epochs=6"}),
               HasSubstr("train.epochs: 4, now 6, but it stopped early, after epoch 2"));
  const Result on = call("train", {"tiny", "--resume", "--set", "train.early_stop_patience=0"});
  ASSERT_EQ(on.exit_code, 0) << on.err;
  EXPECT_EQ(test::steps_logged(run("runs")), 20U);
}

TEST_F(Resumption, StatesOfEarlierVersionsAreReadBesideTheirConfig) {
  ASSERT_EQ(train_and_signal("runs", 7, SIGINT).exit_code, 130);
  WeightFile state = read_safetensors((run("runs") / "state.safetensors").string());
  state.metadata.erase("retort.config");
  state.metadata.erase("retort.contents");
  auto position = nlohmann::json::parse(state.metadata["retort.train_state"]);
  EXPECT_EQ(position["samples"], 64 * (position["step"].get<int>() - 5));
  EXPECT_FALSE(position.contains("batch"));
  position["batch"] = position["samples"].get<int>() / 64;
  position.erase("samples");
  state.metadata["retort.train_state"] = position.dump();
  write_safetensors((run("runs") / "state.safetensors").string(), state.arrays, state.metadata);

  expect_error(train({"--resume", "--set", "optimizer.lr=0.1"}), HasSubstr("optimizer.lr: 0.05, now 0.1"));
  fs::rename(run("runs") / "config.cfg", folder_ / "config.cfg");
  expect_error(train({"--resume"}), AllOf(HasSubstr("earlier version"), HasSubstr("config.cfg")));
  fs::rename(folder_ / "config.cfg", run("runs") / "config.cfg");
  const Result resumed = train({"--resume"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, HasSubstr("its config is taken from config.cfg"));
  train_whole("whole");
  expect_same_results("whole", "runs");
}

TEST_F(Resumption, FirstWeightsAreNotReadAgain) {
  ASSERT_EQ(train({"--set", "output.root=a", "--set", "train.epochs=1"}).exit_code, 0);
  const fs::path weights = folder_ / "first.safetensors";
  fs::copy_file(run("a") / "last.safetensors", weights);
  const Result cut = interrupt("train", {"tiny.cfg", "--set", "model.init=first.safetensors"}, run("runs"));
  ASSERT_EQ(cut.exit_code, 130) << cut.err;
  fs::copy_file(weights, folder_ / "same.safetensors");
  fs::copy_file(run("runs") / "last.safetensors", folder_ / "other.safetensors");
  fs::rename(folder_ / "other.safetensors", weights);
  expect_error(call("train", {"tiny", "--resume", "--set", "model.init=a/none.pth"}),
               HasSubstr("model.init: \"first.safetensors\", now \"a/none.pth\"."));
  expect_error(call("train", {"tiny", "--resume", "--set", "model.init="}),
               HasSubstr("model.init: \"first.safetensors\", now \"\"."));
  const Result resumed = call("train", {"tiny", "--resume"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, AllOf(HasSubstr("model.init: first.safetensors is no longer what the run began with"),
                                 Not(HasSubstr("weights from"))));
  const Result moved =
      call("train", {"tiny", "--resume", "--set", "model.init=same.safetensors", "--set", "train.epochs=5"});
  ASSERT_EQ(moved.exit_code, 0) << moved.err;
  EXPECT_THAT(moved.out, HasSubstr("now \"same.safetensors\", which holds the same"));
}

class ResumedDistillation : public Resumption {
 protected:
  void SetUp() override {
    Resumption::SetUp();
    ASSERT_EQ(train({"--set", "output.root=teachers", "--set", "train.epochs=1"}).exit_code, 0);
  }
  static constexpr const char* kLosses =
      "[[loss]]\ntype = \"cross_entropy\"\n[[loss]]\ntype = \"soft_targets\"\ntemperature = 4\n";
};

TEST_F(ResumedDistillation, BelongsToItsTeachersAndLosses) {
  const fs::path file = distill_config(kLosses), version = student_run("runs");
  const Result cut = interrupt("distill", {file.string()}, version);
  EXPECT_EQ(advice(cut), program_path("distill") + " runs/student/v1 --resume");
  const auto before = files_of(version);
  const std::map<std::string, std::string> refused = {
      {"loss.1.temperature=2", "loss.1.temperature: 4, now 2"},
      {"loss.1.weight=0.5", "loss.1.weight: 1, now 0.5"},
      {"loss.0.schedule={type=\"warmup\",epochs=2}", "loss.0.schedule.epochs: nothing, now 2"},
      {"teacher.0.precision=f64", "teacher.0.precision: nothing, now \"f64\""},
      {"teacher.0.fold=false", "teacher.0.fold: true, now false"},
      {"teacher.0.path=runs/student", "teacher.0.path: \"teachers/tiny\", now \"runs/student\""},
  };
  for (const auto& [setting, text] : refused) {
    expect_error(call("distill", {"student", "--resume", "--set", setting}),
                 AllOf(HasSubstr("runs/student/v1/state.safetensors: "), HasSubstr(text)));
  }
  expect_error(call("train", {"student", "--resume"}), HasSubstr(": " + advice(cut)));
  expect_error(call("train", {"runs/student"}), HasSubstr(": " + advice(cut)));
  write_file(folder_ / "plain.cfg", "extends = \"tiny.cfg\"\nname = \"student\"\n");
  expect_error(call("train", {"plain.cfg", "--resume"}),
               AllOf(HasSubstr("runs/student/v1: is a run of ./distill"), HasSubstr("./train")));

  // A newer version of the teacher is another teacher.
  ASSERT_EQ(train({"--set", "output.root=teachers", "--set", "train.epochs=1", "--set", "seed=9"}).exit_code, 0);
  const Result newer = call("distill", {"student", "--resume"});
  const std::string former = "--set teacher.0.path=teachers/tiny/v1/best.safetensors";
  expect_error(newer, AllOf(HasSubstr("teacher.0.path: teachers/tiny/v1/best.safetensors when the run began, now "
                                      "teachers/tiny/v2/best.safetensors"),
                            HasSubstr(former)));
  const fs::path checkpoint = run("teachers") / "best.safetensors";
  const std::string good = read_file(checkpoint);
  fs::copy_file(run("teachers", 2) / "best.safetensors", checkpoint, fs::copy_options::overwrite_existing);
  fs::remove_all(run("teachers", 2));
  expect_error(
      call("distill", {"student", "--resume"}),
      HasSubstr("teacher.0.path: teachers/tiny/v1/best.safetensors is no longer the file that the run began with"));
  EXPECT_EQ(files_of(version), before);

  // The same weights elsewhere are the same teacher.
  write_file(folder_ / "moved.safetensors", good);
  const Result moved = call("distill", {"student", "--resume", "--set", "teacher.0.path=moved.safetensors", "--set",
                                        "distill.baseline=none", "--set", "distill.gradient_norms_every=50"});
  ASSERT_EQ(moved.exit_code, 0) << moved.err;
  EXPECT_THAT(moved.out, AllOf(HasSubstr("now \"moved.safetensors\", which holds the same"),
                               HasSubstr("distill.baseline: \"\", now \"none\"")));
  EXPECT_THAT(call("distill", {"student", "--resume"}).out, HasSubstr("runs/student/v1: is finished, after 20 steps"));
}

TEST_F(ResumedDistillation, OfSeveralStudentsGoesOnAsAWhole) {
  const std::string students = "[[student]]\nname = \"a\"\ngroup = \"one\"\n[[student]]\nname = \"b\"\n";
  const fs::path file = distill_config(students + kLosses), version = student_run("runs");
  const Result cut = interrupt("distill", {file.string()}, version / "b");
  const auto distill = [&](const std::string& setting) {
    return call("distill", {"runs/student", "--resume", "--set", setting});
  };
  expect_error(distill("student.1.seeds=[6]"), HasSubstr("student.1.seeds: [5], now [6]"));
  expect_error(distill("student.1.name=c"), HasSubstr("student.1.name: \"b\", now \"c\""));
  expect_error(distill("student.0.optimizer.lr=1"), HasSubstr("student.0.optimizer.lr: 0.05, now 1"));
  expect_error(distill("student.0.loss.0.weight=3"), HasSubstr("student.0.loss.0.weight: 1, now 3"));
  expect_error(call("train", {"runs/student/v1/a", "--resume"}),
               AllOf(HasSubstr("is a student of runs/student/v1"), HasSubstr(advice(cut))));
  const Result resumed = distill("student.0.group=two");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, HasSubstr("student.0.group: \"one\", now \"two\""));
}

}  // namespace
}  // namespace retort
