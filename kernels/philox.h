// Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). The same function on host and device; no state, so no order to keep.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"  // RETORT_HOST_DEVICE

namespace retort {

struct Philox4 {
  std::uint32_t v[4];
};

// Ten rounds on a 128-bit counter with a 64-bit key.
RETORT_HOST_DEVICE inline Philox4 philox(std::uint64_t key, Philox4 counter) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter.v[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter.v[2];
    counter = {{static_cast<std::uint32_t>(p1 >> 32) ^ counter.v[1] ^ k0, static_cast<std::uint32_t>(p1),
                static_cast<std::uint32_t>(p0 >> 32) ^ counter.v[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

// Retort's addressing: four words of randomness at (seed; purpose, epoch, sample, block). An element e of a sample
// uses word e % 4 of block e / 4.
RETORT_HOST_DEVICE inline Philox4 random_block(std::uint64_t seed, std::uint32_t purpose, std::uint32_t epoch,
                                               std::uint32_t sample, std::uint32_t block) {
  return philox(seed, {{block, sample, epoch, purpose}});
}

// Uniform in [0, 1) with 24 bits.
RETORT_HOST_DEVICE inline float uniform_of(std::uint32_t word) {
  return static_cast<float>(word >> 8) * (1.0f / 16777216.0f);
}

// Uses of random numbers that are not layers; layers take kFirstLayerPurpose + their number.
enum RandomPurpose : std::uint32_t {
  kPurposeInit = 1,
  kPurposeShuffle = 2,
  kPurposeSplit = 3,
  kPurposeAugment = 4,
  kPurposeSynthetic = 5,
  kPurposeTeacher = 6,
  kFirstLayerPurpose = 1024,
};

}  // namespace retort
