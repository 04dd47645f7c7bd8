// One version, in every program, checkpoint and run.
#include "engine/version.h"

#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

using ::testing::HasSubstr;

class VersionOption : public test::TinyRunTest {};

TEST_F(VersionOption, IsTheProgramsOwnEverywhere) {
  for (const char* program : {"train", "distill", "evaluate", "predict", "export", "dataset", "runs"}) {
    const test::ProgramResult result = call(program, {"--version"});
    EXPECT_EQ(result.exit_code, 0) << program << result.err;
    EXPECT_EQ(result.out, std::string("Retort ") + version() + "\n") << program;
  }
}

TEST_F(VersionOption, WithANumberIsTheRunsToGoOnWith) {
  ASSERT_EQ(train({"--set", "train.max_steps=1"}).exit_code, 0);
  EXPECT_THAT(train({"--resume", "--version", "1", "--set", "train.max_steps=2"}).out, HasSubstr("tiny/v1"));
  EXPECT_THAT(read_safetensors(run("runs") / "last.safetensors").metadata_or("retort", ""), version());
  EXPECT_THAT(std::string(nlohmann::json::parse(test::read_file(run("runs") / "run.json"))["build"]),
              HasSubstr(version()));
  expect_error(train({"--resume", "--version", "two"}), HasSubstr("--version"), 2);
  expect_error(train({"--version", "1"}), HasSubstr("--resume"), 2);
}

}  // namespace
}  // namespace retort
