// Where a training run stands: what state.safetensors holds beside weights and optimizer state.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distill/learner.h"

namespace retort {

struct TrainState {
  std::int64_t step = 0;   // steps done in all
  int epoch = 0;           // the running epoch, from 0
  std::int64_t batch = 0;  // batches of it that are done; files count its samples, in whole batches
  double epoch_seconds = 0;
  double seconds = 0;  // training time so far, all sessions
  bool stopped_early = false;
  bool cut_short = false;  // max_steps ended the run within the running epoch, which was closed as if it were whole
};

// What a state belongs to.
struct StateRecord {
  // What one key of the config stands for: a file of weights, or the training images.
  struct Contents {
    std::string file;  // as it was found
    std::string checksum;
  };

  std::string config;                        // that trained it, resolved, as TOML; "": of an earlier version
  std::map<std::string, Contents> contents;  // by key: "teacher.0.path"
};

// One atomic file with everything that a resumed run needs, the learners' states included.
void save_train_state(const std::string& path, const TrainState& state, const std::vector<Learner>& learners,
                      const StateRecord& record);

// Fills networks, losses' parts, optimizers and states of the learners. Throws Error, one line, where the file is
// damaged or belongs to another run.
TrainState load_train_state(const std::string& path, std::vector<Learner>& learners);

// What the file's header tells, without reading an array.
struct StateHeader {
  TrainState state;
  StateRecord record;
};
StateHeader read_state_header(const std::string& path, int batch_size);

}  // namespace retort
