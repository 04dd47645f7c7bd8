// Where the device is full, or a library's function fails, in the middle of a run: one line that says so, nothing left
// behind, and what was saved before goes on to the same end.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>

#include <iostream>
#include <set>

#include "tests/device/cublas.h"
#include "tests/device/cudnn.h"
#include "tests/device/training_orders.h"

namespace retort::standin {
namespace {

// Steps of 6 images (run, recorded and replayed, replayed) and of 5, each followed by a saved state.
const std::string kConfig =
    "[train]\nepochs = 2\ncheckpoint_minutes = 1e-9\n[distill]\ngradient_norms_every = 3\n"
    "[[teacher]]\npath = \"teacher\"\n[[loss]]\ntype = \"soft_targets\"\n[[loss]]\ntype = \"fitnet\"\n";
constexpr std::int64_t kSteps = 6;

struct Everything {
  Left device;
  std::size_t descriptors = 0, handles = 0, objects = 0;
  bool operator==(const Everything&) const = default;
};

Everything everything_left() {
  return {left(), live_cudnn_descriptors(), live_cudnn_handles(), live_cublas_objects()};
}

void PrintTo(const Everything& all, std::ostream* out) {
  *out << all.device.allocations << " allocations, " << all.device.pinned << " pinned, " << all.device.streams
       << " streams, " << all.device.events << " events, " << all.device.graphs << " graphs, " << all.descriptors
       << " descriptors, " << all.handles << " handles, " << all.objects << " objects of cuBLASLt";
}

using Calls = std::map<std::string, std::int64_t>;

class Failures : public TrainingOrders {
 protected:
  void SetUp() override {
    TrainingOrders::SetUp();
    run(kConfig, "late");  // what lives as long as the backend is made: plans, buffers, handles
    whole_ = run(kConfig, "late");
    count_calls();
  }
  void TearDown() override { fail_no_calls(); }

  // How often each function was called when the run had made so many steps, and in all.
  void count_calls() {
    test::TinyTraining training(home_.path(), kConfig, kStandin);
    const Calls before = calls();
    const auto since = [&] {
      Calls made = calls();
      for (const auto& [name, count] : before) made[name] -= count;
      return made;
    };
    training.stop_requested = [&] {
      at_.push_back(since());
      return false;
    };
    EXPECT_TRUE(run_on_stream(training, "counted").finished);
    all_ = since();
  }

  // Runs with the `nth` call of `name` and `count` - 1 more failing. The error's text; "" where the run got over it.
  std::string failure_of(const std::string& name, std::int64_t nth, std::int64_t count) {
    const std::string root = name + std::to_string(nth);
    SCOPED_TRACE(root);
    const Everything before = everything_left();
    std::string error;
    {
      test::TinyTraining training(home_.path(), kConfig, kStandin);
      fail_calls(name, nth, count);
      try {
        EXPECT_TRUE(run_on_stream(training, root).finished);
      } catch (const Error& e) {
        error = e.what();
      }
      fail_no_calls();
      cudaGetLastError();
      // The images of this session, unlike a program's, are the null stream's.
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    EXPECT_EQ(everything_left(), before) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    test::TinyTraining training(home_.path(), kConfig, kStandin);
    const bool saved = std::filesystem::exists(training.folder(root) + "/state.safetensors");
    if (!error.empty() && saved) {
      EXPECT_EQ(training.info(root)["state"], "failed");
      EXPECT_TRUE(run_on_stream(training, root, true).finished);
    }
    if (error.empty() || saved) expect_whole(training, root);
    std::filesystem::remove_all(home_ / root);
    return error;
  }

  void expect_whole(const test::TinyTraining& training, const std::string& root) const {
    const TinyRun actual = result_of(training, root, {""});
    EXPECT_EQ(actual.lines, whole_.lines);
    EXPECT_TRUE(actual.files == whole_.files);
  }

  std::vector<Calls> at_;
  Calls all_;

 private:
  TinyRun whole_;
};

class FailuresOfMemory : public Failures, public testing::WithParamInterface<std::int64_t> {};
constexpr std::int64_t kParts = 4;

// Every allocation of the first step, of the recording and of what comes between; then some of each step. An allocation
// is tried twice.
TEST_P(FailuresOfMemory, AreOneLineAndLoseNothing) {
  const char* const name = "cudaMallocFromPoolAsync";
  ASSERT_GE(at_.size(), static_cast<std::size_t>(kSteps));
  const std::int64_t second = at_[1][name], all = all_[name];
  EXPECT_GT(second, 100);
  std::int64_t tried = 0;
  for (std::int64_t n = 1; n <= all; n += n < second ? 1 : 23) {
    if (n % kParts != GetParam()) continue;
    const std::string error = failure_of(name, n, 2);
    EXPECT_THAT(error, testing::HasSubstr("out of memory")) << n;
    ++tried;
    if (HasFailure()) return;
  }
  RecordProperty("tried", std::to_string(tried));
  // Where the second try succeeds, nothing is to be seen of it.
  for (std::int64_t n = 1 + GetParam(); n <= all; n += all / 3) EXPECT_EQ(failure_of(name, n, 1), "") << n;
}

INSTANTIATE_TEST_SUITE_P(Part, FailuresOfMemory, testing::Range<std::int64_t>(0, kParts));

// The first and second call, one within the recording, and the last one.
TEST_F(Failures, OfEachFunctionAreOneLineAndLoseNothing) {
  std::set<std::string> failed, passed_over;
  for (const auto& [name, count] : all_) {
    if (count <= 0) continue;
    std::set<std::int64_t> chosen = {1, std::min<std::int64_t>(2, count), count};
    if (at_[1][name] > at_[0][name]) chosen.insert((at_[0][name] + at_[1][name] + 1) / 2);
    for (const std::int64_t n : chosen) {
      (failure_of(name, n, 1).empty() ? passed_over : failed).insert(name);
      if (HasFailure()) return;
    }
  }
  for (const char* name : {"cudaLaunchKernel", "cudaGraphLaunch", "cudaGraphInstantiateWithFlags",
                           "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaStreamSynchronize", "cudaMemcpyAsync",
                           "cudaEventRecord", "cudaStreamWaitEvent", "cudaStreamCreateWithFlags"}) {
    EXPECT_TRUE(failed.contains(name)) << name;
  }
  std::string names;
  for (const std::string& name : passed_over) {
    if (!failed.contains(name)) names += " " + name;
  }
  RecordProperty("passed_over", names);
  std::cout << "gone on in spite of a failure of:" << names << "\n";
}

}  // namespace
}  // namespace retort::standin
