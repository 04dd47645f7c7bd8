// Tests of the programs as a user starts them, in a folder of their own: start, signal, collect, compare runs.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/files.h"

namespace retort::test {

struct ProgramResult {
  int exit_code = -1;  // 128 + the signal that ended it
  std::string out, err;
};

// A run small enough to repeat many times: 20 steps (4 epochs of 5) of resnet8 on the embedded set.
extern const char* const kTinyConfig;

class ProgramTest : public ::testing::Test {
 protected:
  using Before = std::function<void()>;  // runs in the child, before the program

  // Starts a program, by name or by its whole path, in the test's folder; wait() collects it.
  pid_t start(const std::string& program, const std::vector<std::string>& arguments, const Before& before = {}) const;
  ProgramResult wait(pid_t child) const;
  ProgramResult call(const std::string& program, const std::vector<std::string>& arguments,
                     const Before& before = {}) const;

  // One line on stderr, exit code 1.
  static void expect_error(const ProgramResult& result, const ::testing::Matcher<std::string>& text, int exit_code = 1);

  // Starts a program on a config and sends `signal` once `steps` steps are logged in the folder `logged`.
  ProgramResult signal_after(const std::string& program, const std::filesystem::path& config_file,
                             const std::string& root, const std::filesystem::path& logged, std::size_t steps,
                             int signal) const;

  // state.safetensors is left out: it holds the time taken.
  static void expect_same_folders(const std::filesystem::path& expected, const std::filesystem::path& actual);

  TemporaryFolder home_;
  const std::filesystem::path folder_ = home_.path();
};

// With kTinyConfig as tiny.cfg.
class TinyRunTest : public ProgramTest {
 protected:
  void SetUp() override { write_file(config(), kTinyConfig); }

  std::filesystem::path config() const { return folder_ / "tiny.cfg"; }
  std::filesystem::path run(const std::string& root, int version = 1) const;
  ProgramResult train(std::vector<std::string> arguments) const;
  void train_whole(const std::string& root) const;
  void expect_same_results(const std::string& expected, const std::string& actual) const;
  ProgramResult train_and_signal(const std::string& root, std::size_t steps, int signal) const;

  // A config of a distillation of the trained tiny network (in `teachers`), with these blocks at its end.
  std::filesystem::path distill_config(const std::string& blocks) const;
  std::filesystem::path student_run(const std::string& root) const { return folder_ / root / "student" / "v1"; }
};

// The whole path of a built program.
std::string program_path(const std::string& name);

// All that metrics.jsonl of a run's folder holds, times left out; and how many steps.
std::vector<std::string> logged_lines(const std::filesystem::path& folder);
std::size_t steps_logged(const std::filesystem::path& folder);

}  // namespace retort::test
