// Which images a run sees, and in which order. All of it is decided by Philox counters and integer arithmetic, so the
// same seed gives the same answer on every platform.
#pragma once

#include <cstdint>
#include <vector>

namespace retort {

struct Split {
  std::vector<std::int32_t> train;       // ascending
  std::vector<std::int32_t> validation;  // ascending
};

// Sets a part of the samples aside: `validation` below 1 is a fraction of them, from 1 on a number of images. Each
// class gives its share, rounded so that the total is exact. Throws Error where nothing would be left to train on.
Split split_train_validation(const std::vector<std::int32_t>& labels, double validation, std::uint64_t seed);

// The given fraction, in (0, 1], of each class among `indices` (rounded, at least one image a class), ascending.
// The subset of a smaller fraction lies within that of a larger one.
std::vector<std::int32_t> take_fraction(const std::vector<std::int32_t>& indices,
                                        const std::vector<std::int32_t>& labels, double fraction, std::uint64_t seed);

// The order in which an epoch visits `indices`: as they are, or shuffled by (seed, epoch) alone.
std::vector<std::int32_t> epoch_order(const std::vector<std::int32_t>& indices, std::uint64_t seed, int epoch,
                                      bool shuffle);

}  // namespace retort
