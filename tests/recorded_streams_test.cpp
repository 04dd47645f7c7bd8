// What a recorded step does with streams, in builds without CUDA: the CPU's kernels stand behind a device with streams
// that knows two rules of stream capture. A recorded stream may not wait for one that is not recorded, and what forks
// must join: work on the teachers' stream that the recorded one does not wait for is an error at the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "engine/stream.h"
#include "kernels/cpu/backend.h"
#include "tests/support/files.h"
#include "tests/support/tiny_training.h"

namespace retort {
namespace {

using kernels::Stream;

class StreamRules final : public kernels::CpuBackend {
 public:
  std::vector<std::string> complaints;
  int recordings = 0;

  Device device() const override { return {DeviceType::cuda, 0}; }
  void* allocate(std::size_t bytes, Stream stream) override {
    work_on(stream);
    return CpuBackend::allocate(bytes, {});
  }
  void deallocate(void* data, std::size_t bytes, Stream stream) noexcept override {
    work_on(stream);
    CpuBackend::deallocate(data, bytes, {});
  }
  Stream create_stream() override { return {new char}; }
  void destroy_stream(Stream stream) noexcept override { delete static_cast<char*>(stream.handle); }

  void wait(Stream waiting, Stream on) override {
    if (!recording_) return;
    if (recorded_.contains(on.handle)) {
      recorded_.insert(waiting.handle);
      if (waiting.handle == origin_) unjoined_.erase(on.handle);
    } else if (recorded_.contains(waiting.handle)) {
      complaints.emplace_back("a recorded stream waits for one that is not");
    }
  }

  std::unique_ptr<kernels::Graph> capture(Stream stream, const std::function<void()>& work) override {
    recording_ = true;
    origin_ = stream.handle;
    recorded_ = {origin_};
    unjoined_.clear();
    work();  // at once, as all of the CPU's work
    recording_ = false;
    if (!unjoined_.empty()) complaints.emplace_back("a recording ends with work that nobody waits for");
    ++recordings;
    return CpuBackend::capture({}, work);
  }

 private:
  void work_on(Stream stream) {
    if (recording_ && stream.handle != origin_ && recorded_.contains(stream.handle)) unjoined_.insert(stream.handle);
  }

  bool recording_ = false;
  void* origin_ = nullptr;
  std::set<void*> recorded_, unjoined_;
};

class RecordedStreams : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  // The registry keeps the first backend that a device got.
  static StreamRules& rules() {
    if (made() == nullptr) kernels::backend({DeviceType::cuda, 0});
    return *made();
  }
  static StreamRules*& made() {
    static StreamRules* made = nullptr;
    return made;
  }
  static kernels::CudaProvider provider() {
    return {[] { return 1; }, [] { return std::string(); },
            [](int) -> std::unique_ptr<kernels::Backend> {
              auto backend = std::make_unique<StreamRules>();
              made() = backend.get();
              return backend;
            }};
  }

  void SetUp() override {
    if (kernels::built_in_cuda_provider().device_count() > 0) GTEST_SKIP() << "there is a device that has these rules";
    kernels::set_cuda_provider(provider());
  }
  void TearDown() override { kernels::set_cuda_provider(kernels::built_in_cuda_provider()); }

  test::TemporaryFolder home_;
};

TEST_P(RecordedStreams, JoinAndWaitOnlyForOneAnother) {
  const Device device{DeviceType::cuda, 0};
  rules().complaints.clear();
  rules().recordings = 0;
  const Stream stream = kernels::backend(device).create_stream();
  {
    const StreamGuard guard(device, stream);
    test::TinyTraining training(home_.path(), GetParam().second, device);
    training.run("runs");
  }
  kernels::backend(device).destroy_stream(stream);
  EXPECT_GT(rules().recordings, 0);
  EXPECT_THAT(rules().complaints, testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Of, RecordedStreams,
    testing::Values(std::pair("training", "[train]\nepochs = 2\n"),
                    std::pair("distillation",
                              "[train]\nepochs = 2\n[[teacher]]\npath = \"teacher\"\n"
                              "[[loss]]\ntype = \"cross_entropy\"\n[[loss]]\ntype = \"soft_targets\"\n"),
                    std::pair("no_loss_of_a_teacher",
                              "[train]\nepochs = 2\n[[teacher]]\npath = \"teacher\"\n"
                              "[[loss]]\ntype = \"cross_entropy\"\n"),
                    std::pair("drawn_teachers_and_features",
                              "[train]\nepochs = 3\n[distill]\ncombine = \"random\"\ngradient_norms_every = 2\n"
                              "[[teacher]]\npath = \"teacher\"\n[[teacher]]\npath = \"teacher\"\n"
                              "[[loss]]\ntype = \"attention_transfer\"\n[[loss]]\ntype = \"soft_targets\"\n"),
                    std::pair("students_with_and_without",
                              "[train]\nepochs = 2\n[[teacher]]\npath = \"teacher\"\n"
                              "[[student]]\nname = \"a\"\n[[student.loss]]\ntype = \"cross_entropy\"\n"
                              "[[student]]\nname = \"b\"\n[[student.loss]]\ntype = \"soft_targets\"\n"
                              "[[student]]\nname = \"c\"\n[[student.loss]]\ntype = \"cross_entropy\"\n")),
    [](const auto& instance) { return std::string(instance.param.first); });

}  // namespace
}  // namespace retort
