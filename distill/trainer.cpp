#include "distill/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "data/split.h"
#include "distill/progress.h"
#include "distill/train_state.h"
#include "distill/training_step.h"
#include "engine/schedule.h"
#include "engine/stream.h"

namespace retort {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

Json to_json(const Metrics& m) { return {{"loss", m.loss}, {"top1", m.top1}, {"top5", m.top5}}; }

// A stream of its own for the whole run: the null stream of CUDA cannot be captured.
class RunStream {
 public:
  explicit RunStream(Device device)
      : backend_(kernels::backend(device)), stream_(backend_.create_stream()), guard_(device, stream_) {}
  ~RunStream() { backend_.destroy_stream(stream_); }
  RunStream(const RunStream&) = delete;
  RunStream& operator=(const RunStream&) = delete;

 private:
  kernels::Backend& backend_;
  Stream stream_;
  StreamGuard guard_;
};

class Trainer {
 public:
  Trainer(const TrainConfig& config, const TrainerOptions& options)
      : config_(config),
        options_(options),
        stream_(resolve_device(config.device)),
        session_(make_session(config)),
        objective_(*session_.model, config.train.label_smoothing),
        optimizer_(session_.model->parameters(), optimizer_options(config)),
        steps_per_epoch_(static_cast<std::int64_t>(
            batches_of(session_.train, config.data.batch_size).size())),
        schedule_(make_schedule()),
        step_(*session_.model, objective_, optimizer_, session_.train_data, step_options()) {}

  TrainSummary run();

 private:
  void begin();
  bool train_epoch();  // false: stop was requested
  void collect(bool wait);
  void end_epoch();
  void save_last();
  void save_weights(const std::string& file, int epoch, const std::optional<Metrics>& validation);
  void test(TrainSummary& summary);
  [[noreturn]] void stop_nonfinite(const StepRecord& record);

 private:
  std::int64_t total_steps() const;
  Schedule make_schedule() const;
  StepOptions step_options() const;

  const TrainConfig& config_;
  const TrainerOptions& options_;
  RunStream stream_;
  Session session_;
  CrossEntropyObjective objective_;
  Optimizer optimizer_;
  std::int64_t steps_per_epoch_;
  Schedule schedule_;
  TrainingStep step_;
  TrainState state_;
};

}  // namespace
}  // namespace retort
