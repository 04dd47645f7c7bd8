// The programs as a user starts them: training, interruption, resumption, and what bad input gets to hear.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/safetensors.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::logged_lines;
using test::program_path;
using test::read_file;
using test::steps_logged;
using test::write_file;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using Result = test::ProgramResult;

class Programs : public test::TinyRunTest {};

TEST_F(Programs, TrainingLogsStepsEpochsAndTest) {
  train_whole("a");
  std::size_t steps = 0, epochs = 0, tests = 0;
  std::ifstream file(run("a") / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto object = nlohmann::json::parse(line);
    const std::string kind = object["kind"];
    if (kind == "step") {
      EXPECT_EQ(object["step"], ++steps);
      EXPECT_EQ(object["loss"], object["terms"]["cross_entropy"]);
      EXPECT_TRUE(object["lr"].is_number());
    } else if (kind == "epoch") {
      EXPECT_EQ(object["epoch"], ++epochs);
      for (const char* key : {"loss", "top1", "top5"}) EXPECT_TRUE(object["val"][key].is_number());
      EXPECT_TRUE(object["train"]["top1"].is_number());
      EXPECT_GT(object["images_per_second"], 0.0);
    } else {
      EXPECT_EQ(kind, "test");
      EXPECT_EQ(object["checkpoint"], ++tests == 1 ? "last" : "best");
    }
  }
  EXPECT_EQ(steps, 20u);  // 3.3 % of 9,900 images, class by class, is 320: five batches of 64 in each of four epochs
  EXPECT_EQ(epochs, 4u);
  EXPECT_EQ(tests, 2u);
  for (const char* name : {"config.cfg", "run.json", "log.txt", "best.safetensors", "last.safetensors"}) {
    EXPECT_TRUE(fs::exists(run("a") / name)) << name;
  }
  const Result listed = call("runs", {"--root", "a"});
  EXPECT_EQ(listed.exit_code, 0);
  EXPECT_THAT(listed.out, AllOf(HasSubstr("tiny"), HasSubstr("finished"), HasSubstr("resnet8"), HasSubstr("4/4")));
  const Result exported = call("export", {"a/tiny", "--onnx", "tiny.onnx", "--fold", "--precision", "f16"});
  EXPECT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_THAT(exported.out, AllOf(HasSubstr("tiny.onnx: resnet8, "), HasSubstr("[batch, 3, 32, 32], f16")));
  EXPECT_THAT(read_file(folder_ / "tiny.onnx"), HasSubstr("normalize_mean"));
  // The resolved config repeats the run.
  const Result again = call("train", {(run("a") / "config.cfg").string(), "--set", "output.root=b"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  expect_same_results("a", "b");
}

TEST_F(Programs, ExportSaysWhatItCannotDo) {
  EXPECT_EQ(call("export", {"a/tiny"}).exit_code, 2);
  EXPECT_EQ(call("export", {"a/tiny", "--safetensors", "x", "--fold"}).exit_code, 2);
  EXPECT_EQ(call("export", {"a/tiny", "--onnx", "x", "--input-size", "3x"}).exit_code, 2);
  const Result half = call("export", {"a/tiny", "--onnx", "x", "--precision", "bf16"});
  EXPECT_EQ(half.exit_code, 2);
  EXPECT_THAT(half.err, HasSubstr("ONNX is written in f32 or f16"));
  const Result absent = call("export", {"a/tiny", "--onnx", "x"});
  EXPECT_EQ(absent.exit_code, 1);
  EXPECT_THAT(absent.err, HasSubstr("a/tiny: no such file or folder"));
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST_F(Programs, RunsAreComparedByNameVersionAndStudent) {
  const auto version = [&](const std::string& name, const std::string& info, const std::string& text) {
    const fs::path folder = folder_ / "runs" / name;
    fs::create_directories(folder);
    write_file(folder / "run.json", info);
    write_file(folder / "config.cfg", text);
  };
  const std::string common = "seed = 1\n[data]\naugment = [\"flip\"]\n";
  version("plain/v1", R"({"state": "finished", "arch": "resnet8", "parameters": 78042, "test_last_top1": 0.5})",
          "name = \"plain\"\n" + common + "[optimizer]\nlr = 0.1\n");
  version("plain/v2", R"({"state": "running", "arch": "resnet8", "seconds": 61.0, "test_best_loss": 1.25})",
          "name = \"plain\"\n" + common + "[optimizer]\nlr = 0.05\n[[loss]]\ntype = \"pkt\"\n");
  version("sweep/v1",
          R"({"state": "finished", "students": {"kd": {"arch": "resnet8", "parameters": 78042, "test_last_top1": 0.625},
                                                "wide": {"arch": "resnet8x4", "test_last_top1": 0.75}}})",
          common +
              "[optimizer]\nlr = 0.1\n[[student]]\nname = \"kd\"\n[student.model]\narch = \"resnet8\"\n"
              "[[student]]\nname = \"wide\"\n[student.model]\narch = \"resnet8x4\"\n");

  const Result two = call("runs", {"plain/v1", "plain"});  // the newest, v2
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_THAT(two.out, ContainsRegex("plain/v1 +plain/v2\n"));
  EXPECT_THAT(two.out, ContainsRegex("state +finished +died\n"));
  EXPECT_THAT(two.out, ContainsRegex("parameters +78,042 +-\n"));
  EXPECT_THAT(two.out, ContainsRegex("test last % +50.00 +-\n"));
  EXPECT_THAT(two.out, ContainsRegex("test best loss +- +1.2500\n"));
  EXPECT_THAT(two.out, ContainsRegex("time +- +1 min 01 s\n"));
  EXPECT_THAT(two.out, ContainsRegex("loss.0.type +- +pkt\noptimizer.lr +0.1 +0.05\n$"));
  EXPECT_EQ(two.out.find("augment"), std::string::npos);
  EXPECT_THAT(call("runs", {"runs/plain/v1/", "plain/v1"}).out, HasSubstr("the configs are the same"));

  EXPECT_THAT(call("runs", {}).out, AllOf(ContainsRegex("\n  kd +resnet8 +78,042 +- +62.50 "),
                                          ContainsRegex("\n  wide +resnet8x4 +- +- +75.00 ")));

  const auto json = nlohmann::json::parse(call("runs", {"plain/v1", "sweep", "--json"}).out);
  ASSERT_EQ(json["runs"].size(), 3u);
  EXPECT_EQ(json["runs"][1]["name"], "sweep/v1/kd");
  EXPECT_EQ(json["runs"][1]["test_last_top1"], 0.625);
  EXPECT_EQ(json["runs"][1]["parameters"], 78042);
  EXPECT_EQ(json["runs"][2]["arch"], "resnet8x4");
  EXPECT_EQ(json["config"], nlohmann::json::parse(R"({"model.arch": [null, "resnet8", "resnet8x4"]})"));
  EXPECT_THAT(call("runs", {"sweep/wide", "plain/v2", "--csv"}).out,
              AllOf(HasSubstr(",config.loss.0.type,config.model.arch,config.optimizer.lr\n"),
                    HasSubstr("\nsweep/v1/wide,finished,resnet8x4,"), HasSubstr(",resnet8x4,0.1\n"),
                    HasSubstr("\nplain/v2,died,"), HasSubstr(",pkt,,0.05\n")));

  const Result unknown = call("runs", {"plian"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_EQ(unknown.err, "error: \"plian\": no such run in runs; did you mean \"plain\"?\n");
  EXPECT_THAT(call("runs", {"sweep/v1/kdd"}).err, HasSubstr("did you mean \"sweep/v1/kd\"?"));
  EXPECT_EQ(call("runs", {"--json", "--csv"}).exit_code, 2);
}

TEST_F(Programs, StartedInTheirBuildFolderTheyKeepRunsInTheProjects) {
  const fs::path build = folder_ / "project/build";
  fs::create_directories(build);
  write_file(build / "CMakeCache.txt", "");
  for (const char* name : {"train", "runs", "distill", "export"}) {
    fs::copy_file(program_path(name), build / name);
  }
  fs::copy_file(config(), build / "tiny.cfg");
  fs::copy_file(distill_config("[[loss]]\ntype = \"logit_mse\"\n"), build / "student.cfg");
  const auto there = [&] {
    if (chdir(build.c_str()) != 0) _exit(99);
  };
  const Result trained = call(build / "train", {"tiny.cfg", "--set", "train.epochs=1"}, there);
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(fs::exists(folder_ / "project/runs/tiny/v1/best.safetensors"));
  EXPECT_THAT(call(build / "runs", {}, there).out, HasSubstr("tiny"));
  const Result exported = call(build / "export", {"runs/tiny", "--onnx", "tiny.onnx"}, there);
  EXPECT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_TRUE(fs::exists(build / "tiny.onnx"));
  const std::vector<std::string> arguments = {"student.cfg", "--set", "teacher.0.path=tiny.onnx", "--set",
                                              "train.epochs=1"};
  const Result distilled = call(build / "distill", arguments, there);
  EXPECT_EQ(distilled.exit_code, 0) << distilled.err;
  EXPECT_TRUE(fs::exists(folder_ / "project/runs/student/v1/best.safetensors"));
}

TEST_F(Programs, InterruptedAndResumedEqualsUninterrupted) {
  train_whole("whole");
  for (const std::size_t steps : {1u, 9u, 17u}) {
    const std::string root = "cut" + std::to_string(steps);
    const Result cut = train_and_signal(root, steps, SIGINT);
    EXPECT_EQ(cut.exit_code, 130) << cut.err;
    EXPECT_THAT(cut.out, HasSubstr("--resume"));
    EXPECT_THAT(call("runs", {"--root", root}).out, HasSubstr("interrupted"));
    const Result resumed = train({"--resume", "--set", "output.root=" + root});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    expect_same_results("whole", root);
  }
}

TEST_F(Programs, KilledAndResumedEqualsUninterrupted) {
  train_whole("whole");
  EXPECT_EQ(train_and_signal("killed", 10, SIGKILL).exit_code, 128 + SIGKILL);
  EXPECT_THAT(call("runs", {"--root", "killed"}).out, HasSubstr("died"));
  const Result resumed = train({"--resume", "--version", "1", "--set", "output.root=killed"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  expect_same_results("whole", "killed");
}

TEST_F(Programs, OneVersionIsTrainedByOneProcess) {
  const pid_t child = start("train", {config().string(), "--set", "train.epochs=400"});
  while (steps_logged(run("runs")) < 7) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const fs::path other = folder_ / "other";
  const Result second = [&] {
    const std::string out = read_file(folder_ / "out");
    return train({"--resume"});
  }();
  expect_error(second, HasSubstr("another process is training"));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST_F(Programs, BadConfigsGetOneLine) {
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = test::kTinyConfig;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    write_file(config(), text.replace(at, from.size(), to));
    return train({});
  };
  expect_error(with("momentum", "momentun"), AllOf(HasSubstr("tiny.cfg:14"), HasSubstr("momentum")));
  expect_error(with("epochs = 4", "epochs = \"four\""), AllOf(HasSubstr("tiny.cfg:20"), HasSubstr("epochs")));
  expect_error(with("batch_size = 64", "batch_size = 0"), AllOf(HasSubstr("tiny.cfg:8"), HasSubstr("batch_size")));
  expect_error(with("lr = 0.05", "lr = nan"), AllOf(HasSubstr("tiny.cfg:13"), HasSubstr("lr")));
  expect_error(with("lr = 0.05", "lr = -1.0"), HasSubstr("tiny.cfg:13"));
  expect_error(with("\"resnet8\"", "\"resnet9\""), AllOf(HasSubstr("tiny.cfg:11"), HasSubstr("resnet8")));
  expect_error(with("\"shapes\"", "\"shape\""), AllOf(HasSubstr("tiny.cfg:5"), HasSubstr("shapes")));
  expect_error(with("\"flip\"", "\"flop\""), AllOf(HasSubstr("tiny.cfg:9"), HasSubstr("flip")));
  expect_error(with("[optimizer]", "[optimizer"), HasSubstr("tiny.cfg:12"));
  write_file(config(), test::kTinyConfig);
  expect_error(train({"--set", "optimizer.lr=fast"}), HasSubstr("--set optimizer.lr"));
  expect_error(call("train", {"missing.cfg"}), HasSubstr("missing.cfg"));
  expect_error(call("train", {}), HasSubstr("config"), 2);
  expect_error(train({"--frobnicate"}), HasSubstr("--frobnicate"), 2);
  EXPECT_FALSE(fs::exists(folder_ / "runs")) << "a bad config must not leave a run behind";
}

TEST_F(Programs, MissingThingsGetOneLine) {
  expect_error(train({"--set", "data.dataset=cifar100", "--set", "data.root=nowhere"}),
               AllOf(HasSubstr("nowhere"), HasSubstr("dataset cifar100")));
  expect_error(train({"--resume"}), HasSubstr("no run to resume"));
  expect_error(train({"--set", "model.init=nothing.safetensors"}), HasSubstr("nothing.safetensors"));
  expect_error(train({"--evaluate-only"}), HasSubstr("init"));
  fs::create_directories(folder_ / "bad/cifar-100-binary");
  for (const char* file : {"train.bin", "test.bin"}) {
    write_file(folder_ / "bad/cifar-100-binary" / file, std::string(3073, 'x'));
  }
  expect_error(train({"--set", "data.dataset=cifar100", "--set", "data.root=bad"}),
               AllOf(HasSubstr("train.bin"), HasSubstr("3073")));
}

TEST_F(Programs, CudaAskedForWithoutADeviceIsOneLine) {
  if (std::system("nvidia-smi > /dev/null 2>&1") == 0) GTEST_SKIP() << "this machine has a GPU";
  expect_error(train({"--set", "device=cuda"}), AllOf(HasSubstr("cuda:0"), HasSubstr("cpu")));
}

TEST_F(Programs, DamagedAndForeignCheckpointsAreRefused) {
  train_whole("runs");
  const fs::path weights = run("runs") / "last.safetensors", state = run("runs") / "state.safetensors";
  const std::string good = read_file(weights), good_state = read_file(state);
  const auto evaluate = [&] { return train({"--evaluate-only", "--set", "model.init=" + weights.string()}); };
  EXPECT_EQ(evaluate().exit_code, 0);

  std::string flipped = good;
  flipped[flipped.size() / 2] ^= 0x10;
  write_file(weights, flipped);
  expect_error(evaluate(), HasSubstr("last.safetensors"));
  write_file(weights, good.substr(0, good.size() - 100));
  expect_error(evaluate(), HasSubstr("last.safetensors"));
  write_file(weights, good);
  expect_error(train({"--evaluate-only", "--set", "model.arch=resnet14", "--set", "model.init=" + weights.string()}),
               AllOf(HasSubstr("resnet8"), HasSubstr("resnet14")));

  write_file(state, good_state.substr(0, good_state.size() / 2));
  expect_error(train({"--resume"}), HasSubstr("state.safetensors"));
  EXPECT_TRUE(read_file(weights) == good);
}

TEST_F(Programs, AFullDiskLeavesTheLastGoodCheckpoint) {
  // Long enough for one epoch's files; what comes later does not fit.
  train_whole("runs");
  const std::string good = read_file(run("runs") / "last.safetensors");
  const auto limit = [] {
    signal(SIGXFSZ, SIG_IGN);  // a write past the limit fails with EFBIG
    const rlimit bytes{100 * 1024, 100 * 1024};
    setrlimit(RLIMIT_FSIZE, &bytes);
  };
  const Result result = call("train", {config().string(), "--resume", "--set", "train.epochs=8"}, limit);
  expect_error(result, HasSubstr("safetensors"));
  EXPECT_TRUE(read_file(run("runs") / "last.safetensors") == good);
  for (const auto& entry : fs::directory_iterator(run("runs"))) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
  const Result recovered = train({"--resume", "--set", "train.epochs=8"});
  EXPECT_EQ(recovered.exit_code, 0) << recovered.err;
}

constexpr const char* kLosses = R"([[loss]]
type = "cross_entropy"
weight = 0.5
[[loss]]
type = "soft_targets"
temperature = 4
[[loss]]
type = "fitnet"
weight = 2
schedule = { type = "warmup", epochs = 2 }
)";

TEST_F(Programs, DistillLogsTermsAndPrintsTheTable) {
  train_whole("teachers");
  const Result result = call("distill", {distill_config(kLosses).string(), "--set", "distill.baseline=teachers/tiny",
                                         "--set", "distill.gradient_norms_every=5"});
  ASSERT_EQ(result.exit_code, 0) << result.out << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("teacher 1: resnet8"), HasSubstr("baseline"), HasSubstr("student"),
                                HasSubstr("agrees with teacher"), HasSubstr("distillation")));
  std::size_t norms = 0;
  std::ifstream log(student_run("runs") / "metrics.jsonl");
  for (std::string line; std::getline(log, line);) {
    const auto object = nlohmann::json::parse(line);
    if (object["kind"] == "gradient_norms") {
      ++norms;
      for (const char* term : {"cross_entropy", "soft_targets", "fitnet"}) EXPECT_GT(object["terms"][term], 0.0);
    }
    if (object["kind"] != "step") continue;
    double total = 0;
    for (const auto& [term, value] : object["terms"].items()) {
      total += value.get<double>() * object["weights"][term].get<double>();
    }
    EXPECT_NEAR(object["loss"].get<double>(), total, 1e-5 * total);
    EXPECT_EQ(object["weights"]["fitnet"].get<double>(), object["epoch"].get<int>() == 1 ? 1.0 : 2.0);
  }
  EXPECT_EQ(norms, 4u);
  // The student's checkpoint holds the student alone.
  const std::string weights = read_file(student_run("runs") / "last.safetensors");
  EXPECT_EQ(weights.find("fitnet"), std::string::npos);
  EXPECT_NE(read_file(student_run("runs") / "state.safetensors").find("loss.fitnet.conv1.weight"), std::string::npos);
  for (const char* name : {"results.txt", "results.csv", "curves.csv"}) {
    EXPECT_TRUE(fs::exists(student_run("runs") / name)) << name;
  }
  // The resolved config repeats the run.
  const Result again = call("distill", {(student_run("runs") / "config.cfg").string(), "--set", "output.root=b"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  expect_same_folders(student_run("runs"), student_run("b"));
}

TEST_F(Programs, AnInterruptedDistillationResumesBitForBit) {
  train_whole("teachers");
  const fs::path file = distill_config(kLosses);
  ASSERT_EQ(call("distill", {file.string(), "--set", "output.root=whole"}).exit_code, 0);
  const Result cut = signal_after("distill", file, "cut", student_run("cut"), 7, SIGINT);
  EXPECT_EQ(cut.exit_code, 130) << cut.err;
  const Result resumed = call("distill", {file.string(), "--resume", "--set", "output.root=cut"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  expect_same_folders(student_run("whole"), student_run("cut"));
}

TEST_F(Programs, SeveralStudentsEqualOneAtATime) {
  train_whole("teachers");
  const std::string one = "[[student]]\nname = \"kd\"\nseeds = [5, 6]\n[[student.loss]]\ntype = \"soft_targets\"\n";
  const std::string two = "[[student]]\nname = \"plain\"\n[[student.loss]]\ntype = \"cross_entropy\"\n";
  ASSERT_EQ(
      call("distill", {distill_config("[[loss]]\ntype = \"soft_targets\"\n").string(), "--set", "output.root=alone"})
          .exit_code,
      0);
  const Result together = call("distill", {distill_config(one + two).string(), "--set", "output.root=together"});
  ASSERT_EQ(together.exit_code, 0) << together.out << together.err;
  EXPECT_THAT(together.out, AllOf(HasSubstr("kd (2 runs)"), HasSubstr("±"), HasSubstr("plain")));
  expect_same_folders(student_run("alone"), student_run("together") / "kd-5");
  EXPECT_FALSE(read_file(student_run("together") / "kd-5/last.safetensors") ==
               read_file(student_run("together") / "kd-6/last.safetensors"));
  const Result cut = signal_after("distill", folder_ / "student.cfg", "cut", student_run("cut") / "plain", 9, SIGKILL);
  EXPECT_EQ(cut.exit_code, 128 + SIGKILL);
  ASSERT_EQ(call("distill", {(folder_ / "student.cfg").string(), "--resume", "--set", "output.root=cut"}).exit_code, 0);
  for (const char* name : {"kd-5", "kd-6", "plain"}) {
    expect_same_folders(student_run("together") / name, student_run("cut") / name);
  }
  const auto students_of = [&](const std::string& root) {
    return nlohmann::json::parse(read_file(student_run(root) / "run.json"))["students"];
  };
  EXPECT_EQ(students_of("together"), students_of("cut"));
  EXPECT_THAT(call("runs", {"--root", "cut"}).out, AllOf(HasSubstr("  kd-6 "), HasSubstr("  plain ")));
  const auto alone = nlohmann::json::parse(read_file(student_run("alone") / "run.json"));
  EXPECT_EQ(students_of("cut").at("plain").at("parameters"), alone.at("parameters"));
}

TEST_F(Programs, DistillRefusesTeachersThatAreOfNoUse) {
  train_whole("teachers");
  const fs::path file = distill_config("[[loss]]\ntype = \"soft_targets\"\n");
  const auto distill = [&](std::vector<std::string> more) {
    more.insert(more.begin(), file.string());
    return call("distill", more);
  };
  const fs::path weights = run("teachers") / "best.safetensors";
  const std::string good = read_file(weights);
  expect_error(distill({"--set", "teacher.0.path=nowhere"}), AllOf(HasSubstr("nowhere"), HasSubstr("teacher")));
  expect_error(distill({"--set", "model.classes=30"}), AllOf(HasSubstr("20 classes"), HasSubstr("30")));
  expect_error(distill({"--set", "loss.0.type=soft_target"}), HasSubstr("soft_targets"));
  expect_error(distill({"--set", "loss.0.temperature=0"}), HasSubstr("temperature"));
  std::string flipped = good;
  flipped[flipped.size() / 2] ^= 0x10;
  write_file(weights, flipped);
  expect_error(distill({}), HasSubstr("best.safetensors"));
  write_file(weights, good);
  // Far below what its checkpoint records, before anything is trained.
  WeightFile boastful = read_safetensors(weights.string());
  boastful.metadata["validation_top1"] = "0.99";
  write_safetensors(weights.string(), boastful.arrays, boastful.metadata);
  expect_error(distill({"--set", "distill.teacher_tolerance=0.05"}),
               AllOf(HasSubstr("records 99.00 %"), HasSubstr("normalised"), HasSubstr("teacher_tolerance")));
  write_file(weights, good);
  WeightFile unsound = read_safetensors(weights.string());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto last = std::find_if(unsound.arrays.begin(), unsound.arrays.end(),
                                 [](const NamedArray& array) { return array.name == "fc.weight"; });
  ASSERT_NE(last, unsound.arrays.end());
  std::memcpy(last->bytes.data(), &nan, sizeof nan);
  write_safetensors(weights.string(), unsound.arrays, unsound.metadata);
  expect_error(distill({}), AllOf(HasSubstr("best.safetensors"), HasSubstr("fc.weight"), HasSubstr("NaN")));
  write_file(weights, good);
  write_file(file, "extends = \"tiny.cfg\"\n[[loss]]\ntype = \"soft_targets\"\n");
  expect_error(distill({}), HasSubstr("[[teacher]]"));
  EXPECT_FALSE(fs::exists(folder_ / "runs/student")) << "a bad config must not leave a run behind";
}

TEST_F(Programs, ALossThatIsNotFiniteStopsTheRunAndNamesTheTensor) {
  const Result result = train({"--set", "optimizer.lr=1e30", "--set", "schedule.warmup_epochs=0"});
  expect_error(result, AllOf(HasSubstr("not finite"), HasSubstr("first bad")));
}

}  // namespace
}  // namespace retort
