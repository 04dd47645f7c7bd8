// What training a network takes, foretold from its config before anything is allocated.
#pragma once

#include <cstdint>
#include <span>

#include "distill/session.h"

namespace retort {

// Bytes; each a lower bound, so that nothing that fits is refused.
struct MemoryNeed {
  std::int64_t parameters = 0;  // their number
  std::int64_t network = 0;     // weights, their gradients, the optimizer's moments
  std::int64_t input = 0;       // a step's images
  std::int64_t step = 0;        // the first convolution's result, the logits, their gradient, the last layer's gradient
  std::int64_t evaluation = 0;  // a batch's logits
  std::int64_t saving = 0;      // of the host: weights and moments on their way into a file
  // On a device at its peak; the CPU's memory is the host's.
  std::int64_t total(Device device) const;
};
// For evaluation: weights and gradients alone, which every network has.
MemoryNeed memory_need(const TrainConfig& config, const Session& session, NetworkUse use);

// Throws Error, one line with both figures and the keys to change, where the device has less than is needed.
void check_memory(const TrainConfig& config, const Session& session, NetworkUse use = NetworkUse::training);
// The same for students that train side by side, one by one and all together.
void check_memory(std::span<const TrainConfig* const> students, const Session& session);

// In front of files: gives back what the CPU's steps left cached, where so many parameters with their moments would not
// fit beside it.
void make_room_to_save(std::int64_t parameters);

}  // namespace retort
