// Training and distillation on the stand-in device: what a recorded step computes does not depend on the order in which
// a device runs it, and is what the CPU computes.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/device/training_orders.h"

namespace retort::standin {
namespace {

TEST_F(TrainingOrders, OfTrainingAgree) {
  expect_the_same_in_every_order("[train]\nepochs = 3\n");
}

TEST_F(TrainingOrders, OfDistillationAgree) {
  expect_the_same_in_every_order(
      "[train]\nepochs = 3\n[distill]\ngradient_norms_every = 2\n[[teacher]]\npath = \"teacher\"\n"
      "[[loss]]\ntype = \"cross_entropy\"\n[[loss]]\ntype = \"soft_targets\"\n[[loss]]\ntype = "
      "\"attention_transfer\"\n");
}

// No loss uses the teacher: its stream is not recorded and may not be waited for.
TEST_F(TrainingOrders, WithoutALossOfTheTeacherAgree) {
  expect_the_same_in_every_order(
      "[train]\nepochs = 2\n[[teacher]]\npath = \"teacher\"\n[[loss]]\ntype = \"cross_entropy\"\n");
}

TEST_F(TrainingOrders, OfStudentsWithAndWithoutATeacherAgree) {
  expect_the_same_in_every_order(
      "[train]\nepochs = 2\n[[teacher]]\npath = \"teacher\"\n"
      "[[student]]\nname = \"a\"\n[[student.loss]]\ntype = \"cross_entropy\"\n"
      "[[student]]\nname = \"b\"\n[[student.loss]]\ntype = \"soft_targets\"\n",
      {"a", "b"});
}

class DevicePrograms : public test::TinyRunTest {
 protected:
  // In the program's environment, as a user would set it.
  static Before with(const char* name, const std::string& value) {
    return [=] { setenv(name, value.c_str(), 1); };
  }
};

TEST_F(DevicePrograms, SayWhichDeviceItIsAndEndCleanlyWhenStopped) {
  const pid_t child = start("train", {config().string(), "--set", "device=cuda", "--set", "output.root=runs"},
                            with("RETORT_STANDIN_STATS", "1"));
  const auto ended = [&] {
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid == child;
  };
  while (test::steps_logged(run("runs")) < 3 && !ended()) usleep(10000);
  kill(child, SIGTERM);
  const test::ProgramResult result = wait(child);
  EXPECT_THAT(result.out, testing::HasSubstr("stand-in for an NVIDIA H100"));
  EXPECT_THAT(result.err, testing::HasSubstr("standin: graph 1: "));
  EXPECT_THAT(result.out + result.err, testing::HasSubstr("to go on: "));
}

TEST_F(DevicePrograms, SayInOneLineWhatFailed) {
  const auto train_with = [&](const std::string& failure) {
    return call("train", {config().string(), "--set", "device=cuda"}, with("RETORT_STANDIN_FAIL", failure));
  };
  expect_error(train_with("cudaMallocFromPoolAsync:40:2"), testing::HasSubstr("out of memory"));
  expect_error(train_with("cudaGraphInstantiateWithFlags:1"), testing::HasSubstr("out of memory for a recorded step"));
  expect_error(train_with("cudaStreamBeginCapture:1"), testing::HasSubstr("cudaStreamBeginCapture"));
  expect_error(train_with("cudaLaunchKernel:30"), testing::HasSubstr("too many resources requested for launch"));
}

}  // namespace
}  // namespace retort::standin
