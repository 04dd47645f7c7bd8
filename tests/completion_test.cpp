// tools/completion/retort.bash, as bash calls it.
#include "tests/support/program_test.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::program_path;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Completion : public test::ProgramTest {
 protected:
  void SetUp() override {
    test::write_file(folder_ / "teacher.cfg", "seed = 1\n[optimizer]\nlr = 0.1\n[[loss]]\nweight = 1\n");
    test::write_file(folder_ / "notes.txt", "");
    fs::create_directories(folder_ / "runs" / "teacher" / "v1");
    fs::create_directories(folder_ / "runs" / "student" / "v2");
  }

  // What is offered for the last of the words behind the program's name, with spaces between.
  std::string offered(const std::string& program, const std::string& words) const {
    const std::string script = "source '" + script_ + "'\nCOMP_WORDS=(" + program_path(program) + " " + words + R"()
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_retort "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[*]}")";
    const test::ProgramResult result = call("/bin/bash", {"-c", script});
    EXPECT_EQ(result.err, "") << words;
    return result.out.substr(0, result.out.find('\n'));
  }

  const std::string script_ = (fs::current_path() / "tools/completion/retort.bash").string();
};

TEST_F(Completion, OffersConfigsRunsKeysAndOptions) {
  EXPECT_EQ(offered("train", "te"), "teacher.cfg");
  EXPECT_EQ(offered("distill", "notes"), "");
  EXPECT_EQ(offered("train", "--res"), "--resume");
  EXPECT_EQ(offered("train", "teacher.cfg --set opt"), "optimizer.lr=");
  EXPECT_EQ(offered("train", "teacher.cfg --set ''"), "seed= optimizer.lr=");
  EXPECT_EQ(offered("runs", "te"), "teacher");
  EXPECT_EQ(offered("runs", "student/"), "student/v2");
  EXPECT_EQ(offered("evaluate", "runs/s"), "runs/student");
  EXPECT_EQ(offered("evaluate", "stud"), "student");
  EXPECT_EQ(offered("predict", "student/"), "student/v2");
  EXPECT_EQ(offered("evaluate", "runs/student --split v"), "validation");
  EXPECT_EQ(offered("export", "runs/student --on"), "--onnx");
  EXPECT_EQ(offered("dataset", "cifar1"), "cifar10 cifar100");
  EXPECT_THAT(offered("predict", "runs/student --"),
              AllOf(HasSubstr("--csv"), HasSubstr("--top"), Not(HasSubstr("|"))));
}

TEST_F(Completion, KnowsEveryProgramButTheShellsOwnWord) {
  const test::ProgramResult result = call("/bin/bash", {"-c", "source '" + script_ + "'; complete -p"});
  for (const char* program : {"train", "distill", "evaluate", "predict", "runs", "dataset", "./export"}) {
    EXPECT_THAT(result.out, HasSubstr(std::string(" ") + program + "\n"));
  }
  EXPECT_THAT(result.out, Not(HasSubstr(" export\n")));
}

}  // namespace
}  // namespace retort
