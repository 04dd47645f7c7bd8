// What the backends share about a Walk (kernels/kernels.h).
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace retort::kernels {

// The elements that a walk visits; the extents are known to multiply without overflow.
inline std::int64_t count_of(const Walk& walk) {
  std::int64_t count = 1;
  for (std::size_t k = 0; k < static_cast<std::size_t>(walk.rank); ++k) count *= walk.extents[k];
  return count;
}

// The same elements in the same order over as few axes as can be, one at least: axes of one element go, and
// neighbours become one where both operands step from each to the next as if they were.
inline Walk coalesced(const Walk& walk) {
  Walk result;
  for (std::size_t k = 0; k < static_cast<std::size_t>(walk.rank); ++k) {
    const std::int64_t n = walk.extents[k];
    if (n == 1) continue;
    const auto last = static_cast<std::size_t>(result.rank) - 1;
    if (result.rank > 0 && result.a[last] == walk.a[k] * n && result.b[last] == walk.b[k] * n) {
      result.extents[last] *= n;
      result.a[last] = walk.a[k];
      result.b[last] = walk.b[k];
    } else {
      const auto next = static_cast<std::size_t>(result.rank++);
      result.extents[next] = n;
      result.a[next] = walk.a[k];
      result.b[next] = walk.b[k];
    }
  }
  if (result.rank == 0) {
    result.rank = 1;
    result.extents[0] = result.a[0] = result.b[0] = 1;
  }
  return result;
}

}  // namespace retort::kernels
