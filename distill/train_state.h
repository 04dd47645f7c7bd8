// Where a training run stands: what state.safetensors holds beside weights and optimizer state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "distill/learner.h"

namespace retort {

struct TrainState {
  std::int64_t step = 0;   // steps done in all
  int epoch = 0;           // the running epoch, from 0
  std::int64_t batch = 0;  // batches of it that are done
  double epoch_seconds = 0;
  double seconds = 0;  // training time so far, all sessions
  bool stopped_early = false;
};

// One atomic file with everything that a resumed run needs, the learners' states included.
void save_train_state(const std::string& path, const TrainState& state, const std::vector<Learner>& learners);

// Fills networks, losses' parts, optimizers and states of the learners. Throws Error, one line, where the file is
// damaged or belongs to another run.
TrainState load_train_state(const std::string& path, std::vector<Learner>& learners);

}  // namespace retort
