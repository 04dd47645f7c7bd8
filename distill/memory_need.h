// What training a network takes, foretold from its config before anything is allocated.
#pragma once

#include <cstdint>

#include "distill/session.h"

namespace retort {

// Bytes; each a lower bound, so that nothing that fits is refused.
struct MemoryNeed {
  std::int64_t parameters = 0;  // their number
  std::int64_t network = 0;     // weights, their gradients, the optimizer's moments
  // The larger of two: of a step the input, the first convolution's result, the logits and their gradient; of an
  // evaluation the logits.
  std::int64_t batch = 0;
};
// For evaluation: weights and gradients alone, which every network has.
MemoryNeed memory_need(const TrainConfig& config, const Session& session, NetworkUse use);

// Throws Error, one line with both figures and the keys to change, where the device has less than is needed.
void check_memory(const TrainConfig& config, const Session& session, NetworkUse use = NetworkUse::training);

}  // namespace retort
