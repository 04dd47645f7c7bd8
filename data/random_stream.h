// Random words in order, for work on the host: the blocks of one (seed, purpose, epoch, sample) counter.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/philox.h"

namespace retort {

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint32_t purpose, std::uint32_t epoch, std::uint32_t sample)
      : seed_(seed), purpose_(purpose), epoch_(epoch), sample_(sample) {}

  std::uint32_t word() {
    if (used_ == 4) {
      block_ = random_block(seed_, purpose_, epoch_, sample_, next_block_++);
      used_ = 0;
    }
    return block_.v[used_++];
  }
  // In [0, 1).
  float uniform() { return uniform_of(word()); }
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  // In 0 .. n - 1, without bias (Lemire, "Fast random integer generation in an interval", 2019).
  std::uint32_t below(std::uint32_t n) {
    std::uint64_t product = std::uint64_t{word()} * n;
    const std::uint32_t threshold = (0u - n) % n;
    while (static_cast<std::uint32_t>(product) < threshold) product = std::uint64_t{word()} * n;
    return static_cast<std::uint32_t>(product >> 32);
  }
  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i)
      std::swap(values[i - 1], values[below(static_cast<std::uint32_t>(i))]);
  }

 private:
  std::uint64_t seed_;
  std::uint32_t purpose_, epoch_, sample_;
  std::uint32_t next_block_ = 0;
  std::uint32_t used_ = 4;
  Philox4 block_{};
};

}  // namespace retort
