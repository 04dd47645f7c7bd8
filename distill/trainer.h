// The training loop: epochs, schedule, evaluation, checkpoints, logs, early stopping, interruption, resumption.
//
// After every epoch and on interruption the run's folder gets `last.safetensors` (weights) and `state.safetensors`
// (everything: weights, optimizer, position, sums of the running epoch); `best.safetensors` whenever the validation
// accuracy is the best so far. A resumed run reads state.safetensors alone, one file replaced atomically, and ends bit
// for bit where an uninterrupted one ends.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "distill/config.h"
#include "distill/run_directory.h"
#include "distill/session.h"

namespace retort {

struct TrainerOptions {
  bool resume = false;
  std::optional<int> version;            // of the run to resume; none: the newest
  std::function<bool()> stop_requested;  // asked after every step; may be empty
};

struct TrainSummary {
  bool finished = false;  // false: interrupted, can be resumed
  std::int64_t steps = 0;
  std::optional<Metrics> test_last, test_best;
  std::string run_path;
};

// Trains as the config says, printing progress on stdout. Throws Error on anything that ends the run early other than
// an interruption: bad input, a full disk, a loss that is not finite (the last good files stay).
TrainSummary train(const TrainConfig& config, const TrainerOptions& options);

}  // namespace retort
