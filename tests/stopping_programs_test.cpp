// Every way to stop ./train from outside - signals, a terminal that closes, a reader that ends, a full disk - and what a
// damaged log or run.json means to the run that goes on.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "distill/run_directory.h"
#include "tests/support/program_test.h"
#include "tools/interrupt.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::read_file;
using test::write_file;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using Result = test::ProgramResult;

class Stopping : public test::TinyRunTest {
 protected:
  std::string state(const std::string& root) const {
    return nlohmann::json::parse(read_file(run(root) / "run.json")).at("state");
  }
  void expect_resumable(const std::string& root) const {
    const Result resumed = train({"--resume", "--set", "output.root=" + root});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    expect_same_results("whole", root);
  }
  static void output_to(const char* path) {
    const int file = open(path, O_WRONLY);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0) _exit(98);
    close(file);
  }
};

TEST_F(Stopping, EverySignalThatAsksSavesAndSaysSoAtOnce) {
  train_whole("whole");
  for (const auto& [signal, root] : {std::pair{SIGINT, "int"}, {SIGTERM, "term"}, {SIGHUP, "hup"}}) {
    const Result cut = train_and_signal(root, 7, signal);
    EXPECT_EQ(cut.exit_code, 130) << root << cut.err;
    EXPECT_THAT(cut.out, HasSubstr("--resume"));
    EXPECT_EQ(cut.err, signal == SIGHUP ? "" : "stopping: finishing the step, then saving\n");
    EXPECT_EQ(state(root), "interrupted");
    expect_resumable(root);
  }
}

TEST_F(Stopping, NohupIsRespected) {
  const pid_t child = start("train", {config().string()}, [] { signal(SIGHUP, SIG_IGN); });
  while (test::steps_logged(run("runs")) < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill(child, SIGHUP);
  EXPECT_EQ(wait(child).exit_code, 0);
  EXPECT_EQ(state("runs"), "finished");
}

TEST(InterruptDeathTest, TheSecondSaysWhatIsLostTheThirdEnds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto raise_all = [](std::initializer_list<int> signals) {
    tools::catch_interrupts();
    for (const int signal : signals) raise(signal);
  };
  EXPECT_EXIT((raise_all({SIGINT, SIGTERM}), _exit(tools::stop_requested() ? 7 : 8)), ::testing::ExitedWithCode(7),
              "stopping: finishing the step.*\nstill finishing.*third time ends.*checkpoint_minutes");
  EXPECT_EXIT(raise_all({SIGINT, SIGINT, SIGINT}), ::testing::KilledBySignal(SIGINT), "still finishing");
  // A terminal that closes sends several.
  EXPECT_EXIT((raise_all({SIGHUP, SIGHUP, SIGHUP, SIGHUP}), _exit(tools::stop_requested() ? 7 : 8)),
              ::testing::ExitedWithCode(7), "^$");
}

TEST_F(Stopping, AReaderThatEndsIsAnErrorAndTheRunIsSaved) {
  train_whole("whole");
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  const Result lost = call("train", {config().string(), "--set", "output.root=lost"}, [&] {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
  });
  close(ends[1]);
  expect_error(lost, AllOf(HasSubstr("standard output: cannot be written"), HasSubstr("saved after step 1")));
  EXPECT_EQ(state("lost"), "interrupted");
  expect_resumable("lost");
}

TEST_F(Stopping, AFullDiskBehindStandardOutputIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const Result full = call("train", {config().string()}, [] { output_to("/dev/full"); });
  expect_error(full, HasSubstr("standard output: cannot be written"));
  EXPECT_EQ(state("runs"), "interrupted");
  expect_error(call("runs", {}, [] { output_to("/dev/full"); }), ::testing::_);
}

TEST_F(Stopping, ClosedStreamsAreNotTakenByFiles) {
  const auto closed = [] {
    for (const int stream : {0, 1, 2}) close(stream);
  };
  const Result result = call("train", {config().string(), "--set", "train.epochs=1"}, closed);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(read_file(run("runs") / ".lock"), "");
  EXPECT_EQ(state("runs"), "finished");
  std::ifstream log(run("runs") / "metrics.jsonl");
  for (std::string line; std::getline(log, line);) EXPECT_TRUE(nlohmann::json::accept(line)) << line;
}

TEST_F(Stopping, AFileBeyondItsLimitIsAnError) {
  const Result result = call("train", {config().string()}, [] {
    const rlimit bytes{100 * 1024, 100 * 1024};
    setrlimit(RLIMIT_FSIZE, &bytes);
  });
  expect_error(result, HasSubstr("safetensors"));
  EXPECT_EQ(state("runs"), "failed");
  EXPECT_THAT(call("runs", {}).out, HasSubstr("failed"));
}

TEST_F(Stopping, ADamagedLineOfTheLogIsNamedAndTheRestIsKept) {
  train_whole("whole");
  ASSERT_EQ(train_and_signal("cut", 12, SIGINT).exit_code, 130);
  const std::string path = (run("cut") / "metrics.jsonl").string(), good = read_file(path);
  std::vector<std::string> lines;
  std::istringstream in(good);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  ASSERT_GT(lines.size(), 12u);
  const std::string lost = lines[2];
  lines[2] = lost.substr(0, 20) + '\0' + "\xff}";
  std::string bad;
  for (const std::string& line : lines) bad += line + "\n";
  bad += R"({"kind":"step","st)";  // a line that was being written
  write_file(path, bad);
  const Result resumed = train({"--resume", "--set", "output.root=cut"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  const std::string named = "metrics.jsonl: line 3, " + std::to_string(lines.size() + 1) + " cannot be read";
  EXPECT_THAT(resumed.out, HasSubstr(named));
  EXPECT_THAT(read_file(run("cut") / "log.txt"), HasSubstr(named));
  EXPECT_EQ(read_file(path + ".damaged"), bad);
  std::vector<std::string> expected = test::logged_lines(run("whole"));
  expected.erase(expected.begin() + 2);
  EXPECT_EQ(test::logged_lines(run("cut")), expected);
}

TEST_F(Stopping, ADamagedRunFileIsNamedAndWrittenAnew) {
  train_whole("whole");
  for (const char* damage : {"", "{\"state\": \"run", "[1]", R"({"state": 3})", R"({"students": {"a": 1}})"}) {
    SCOPED_TRACE(damage);
    fs::remove_all(folder_ / "cut");
    ASSERT_EQ(train_and_signal("cut", 12, SIGKILL).exit_code, 128 + SIGKILL);
    write_file(run("cut") / "run.json", damage);
    const Result listed = call("runs", {"--root", "cut"});
    EXPECT_EQ(listed.exit_code, 0) << listed.err;
    EXPECT_THAT(listed.out, HasSubstr("damaged"));
    const Result resumed = train({"--resume", "--set", "output.root=cut"});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_THAT(resumed.out, HasSubstr("run.json: is damaged; it is kept as run.json.damaged"));
    EXPECT_EQ(read_file(run("cut") / "run.json.damaged"), damage);
    nlohmann::json expected = nlohmann::json::parse(read_file(run("whole") / "run.json")),
                   found = nlohmann::json::parse(read_file(run("cut") / "run.json"));
    for (nlohmann::json* info : {&expected, &found}) {
      for (const char* time : {"started", "seconds"}) info->erase(time);
    }
    EXPECT_EQ(found, expected);
  }
}

TEST_F(Stopping, ARunThatDivergesInItsLastStepHasFailed) {
  const Result result =
      train({"--set", "optimizer.lr=1e30", "--set", "schedule.warmup_epochs=0", "--set", "train.max_steps=1"});
  expect_error(result, AllOf(HasSubstr("not finite"), ContainsRegex("parameter|buffer|feature map|logits")));
  EXPECT_EQ(state("runs"), "failed");
  EXPECT_FALSE(fs::exists(run("runs") / "best.safetensors"));
  EXPECT_THAT(call("runs", {}).out, AllOf(HasSubstr("failed"), Not(HasSubstr("finished"))));
}

}  // namespace
}  // namespace retort
