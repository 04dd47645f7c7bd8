#include "tests/support/program_test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace retort::test {

namespace fs = std::filesystem;

const char* const kTinyConfig = R"(name = "tiny"
seed = 5
device = "cpu"
[data]
dataset = "shapes"
validation = 100
fraction = 0.0164
batch_size = 64
augment = ["flip", "crop"]
[model]
arch = "resnet8"
[optimizer]
lr = 0.05
momentum = 0.9
weight_decay = 1e-4
[schedule]
type = "cosine"
warmup_epochs = 1
[train]
epochs = 4
label_smoothing = 0.1
)";

std::string program_path(const std::string& name) {
  return (fs::path(RETORT_PROGRAMS) / name).string();
}

pid_t ProgramTest::start(const std::string& program, const std::vector<std::string>& arguments,
                         const Before& before) const {
  const pid_t child = fork();
  if (child != 0) return child;
  if (chdir(folder_.c_str()) != 0) _exit(99);
  if (!freopen((folder_ / "out").c_str(), "w", stdout) || !freopen((folder_ / "err").c_str(), "w", stderr)) _exit(99);
  if (before) before();
  const std::string path = program_path(program);
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(path.c_str(), argv.data());
  _exit(99);
}

ProgramResult ProgramTest::wait(pid_t child) const {
  int status = 0;
  waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(folder_ / "out"),
          read_file(folder_ / "err")};
}

ProgramResult ProgramTest::call(const std::string& program, const std::vector<std::string>& arguments,
                                const Before& before) const {
  return wait(start(program, arguments, before));
}

void ProgramTest::expect_error(const ProgramResult& result, const ::testing::Matcher<std::string>& text,
                               int exit_code) {
  EXPECT_EQ(result.exit_code, exit_code) << result.out << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_THAT(result.err, text);
}

ProgramResult ProgramTest::signal_after(const std::string& program, const fs::path& config_file,
                                        const std::string& root, const fs::path& logged, std::size_t steps,
                                        int signal) const {
  const pid_t child = start(program, {config_file.string(), "--set", "output.root=" + root});
  while (steps_logged(logged) < steps) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (waitpid(child, nullptr, WNOHANG) == child) ADD_FAILURE() << "ended early: " << read_file(folder_ / "err");
    if (HasFailure()) return {};
  }
  kill(child, signal);
  return wait(child);
}

void ProgramTest::expect_same_folders(const fs::path& expected, const fs::path& actual) {
  for (const char* file : {"last.safetensors", "best.safetensors"}) {
    const std::string a = read_file(expected / file), b = read_file(actual / file);
    ASSERT_FALSE(a.empty()) << file;
    EXPECT_TRUE(a == b) << file << " differs";
  }
  EXPECT_EQ(logged_lines(expected), logged_lines(actual));
}

fs::path TinyRunTest::run(const std::string& root, int version) const {
  return folder_ / root / "tiny" / ("v" + std::to_string(version));
}

ProgramResult TinyRunTest::train(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), config().string());
  return call("train", arguments);
}

void TinyRunTest::train_whole(const std::string& root) const {
  const ProgramResult result = train({"--set", "output.root=" + root});
  ASSERT_EQ(result.exit_code, 0) << result.out << result.err;
}

void TinyRunTest::expect_same_results(const std::string& expected, const std::string& actual) const {
  expect_same_folders(run(expected), run(actual));
}

ProgramResult TinyRunTest::train_and_signal(const std::string& root, std::size_t steps, int signal) const {
  return signal_after("train", config(), root, run(root), steps, signal);
}

fs::path TinyRunTest::distill_config(const std::string& blocks) const {
  const fs::path path = folder_ / "student.cfg";
  write_file(path,
             "extends = \"tiny.cfg\"\nname = \"student\"\n[train]\nlabel_smoothing = 0\n[distill]\n"
             "teacher_tolerance = 1\n[[teacher]]\npath = \"teachers/tiny\"\n" +
                 blocks);
  return path;
}

std::vector<std::string> logged_lines(const fs::path& folder) {
  std::vector<std::string> lines;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    nlohmann::json object = nlohmann::json::parse(line);
    object.erase("seconds");
    object.erase("images_per_second");
    lines.push_back(object.dump());
  }
  return lines;
}

std::size_t steps_logged(const fs::path& folder) {
  std::ifstream file(folder / "metrics.jsonl");
  std::size_t steps = 0;
  for (std::string line; std::getline(file, line);) steps += line.find("\"kind\":\"step\"") != std::string::npos;
  return steps;
}

}  // namespace retort::test
