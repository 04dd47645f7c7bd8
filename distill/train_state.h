// Where a training run stands: what state.safetensors holds beside weights and optimizer state.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/optimizer.h"
#include "models/model.h"

namespace retort {

struct TrainState {
  std::int64_t step = 0;   // steps done in all
  int epoch = 0;           // the running epoch, from 0
  std::int64_t batch = 0;  // batches of it that are done

  // Sums over the running epoch.
  double loss_sum = 0;  // of loss times samples
  std::int64_t samples = 0;
  std::array<double, 4> metrics{};  // as accumulate_metrics keeps them
  double epoch_seconds = 0;

  double best_top1 = -1;  // on the validation split
  int best_epoch = -1;    // from 0
  int last_evaluated_epoch = -1;
  double seconds = 0;  // training time so far, all sessions
  bool training_done = false;
};

// One atomic file with everything that a resumed run needs.
void save_train_state(const std::string& path, const TrainState& state, const Model& model, const Optimizer& optimizer);

// Fills model and optimizer. Throws Error, one line, where the file is damaged or belongs to another model.
TrainState load_train_state(const std::string& path, Model& model, Optimizer& optimizer);

}  // namespace retort
