// The training loop: epochs, schedules, evaluation, checkpoints, logs, early stopping, interruption, resumption.
//
// After every epoch and on interruption the folder of each network gets `last.safetensors` (its weights) and the run's
// folder `state.safetensors` (everything: weights, optimizers, the losses' trainable parts, position, sums of the
// running epoch), which is also written every [train] checkpoint_minutes; `best.safetensors` whenever a network's
// validation accuracy is its best so far. A resumed run reads state.safetensors alone, one file replaced atomically, and
// ends bit for bit where an uninterrupted one ends, wherever it was cut. Nothing that holds a NaN or an infinity
// replaces a file. docs/stopping.md is the user's page.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distill/config.h"
#include "distill/console.h"
#include "distill/learner.h"
#include "distill/run_directory.h"
#include "distill/session.h"
#include "distill/teacher.h"
#include "engine/stream.h"

namespace retort {

struct RunStart;  // distill/resumption.h

struct TrainerOptions {
  bool resume = false;
  std::optional<int> version;            // of the run to resume; none: the newest that has a state
  std::filesystem::path folder;          // of that version; empty: the config's name and [output] root say where
  std::string program = "./train";       // for lines that say how to go on
  std::function<bool()> stop_requested;  // asked after every step and between batches of evaluations; may be empty
};

struct LearnerResult {
  std::optional<Metrics> test_last, test_best;  // best: none without a validation split
};

struct TrainSummary {
  bool finished = false;  // false: interrupted, can be resumed
  std::int64_t steps = 0;
  double seconds = 0;
  std::vector<LearnerResult> learners;
  std::vector<Tensor> teacher_logits;  // of a distillation's test images, for TrainingJob::report; empty behind it
  std::string run_path;                // "": interrupted before there was anything to do in one
};

// What the loop works on. `run` is the config that all learners share.
struct TrainingJob {
  const TrainConfig& run;
  const std::string& resolved_config;  // as config.cfg keeps it
  const Session& session;
  std::vector<Learner>& learners;
  const RunStart& start;
  const Teachers* teachers = nullptr;
  int gradient_norms_every = 0;  // steps; 0: never
  // The last work of a run, after its tests: it is not finished before this is. May be empty.
  std::function<void(const TrainSummary&)> report = {};
};

// A stream of its own for a whole run: CUDA's null stream cannot be captured.
class RunStream {
 public:
  explicit RunStream(Device device);
  ~RunStream();
  RunStream(const RunStream&) = delete;
  RunStream& operator=(const RunStream&) = delete;

 private:
  kernels::Backend& backend_;
  Stream stream_;
  StreamGuard guard_;
};

// Trains until the last epoch, an early stop or an interruption, tests, and reports. Throws Error on anything else that
// ends the run - a full disk, a tensor that is not finite - with the last good files as they were and "failed" as the
// run's state; and where standard output cannot be written, after saving as for an interruption.
TrainSummary run_training(const TrainingJob& job, RunDirectory& run, Console& console, const TrainerOptions& options);

// Where there is nothing left to train: says so.
TrainSummary finished_summary(const RunStart& start);

// Trains one network as the config says, printing progress on stdout.
TrainSummary train(const TrainConfig& config, const TrainerOptions& options);

}  // namespace retort
