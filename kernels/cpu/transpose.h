// Transposition of a block that fits into the first-level cache.
#pragma once

#include <cstdint>

namespace retort::kernels::cpu {

inline constexpr std::int64_t kTransposeBlock = 32;

// y[c, r] = x[r, c] for r < rows, c < columns, both at most kTransposeBlock; pitches in elements. Goes through a copy
// on the stack: rows that lie a power of two apart fall into the same sets of the cache, so neither x nor y may be
// walked down element by element.
template <typename T>
void transpose_block(const T* x, std::int64_t x_pitch, T* y, std::int64_t y_pitch, std::int64_t rows,
                     std::int64_t columns) {
  T block[kTransposeBlock * (kTransposeBlock + 1)];
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) block[r * (kTransposeBlock + 1) + c] = x[r * x_pitch + c];
  }
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) y[c * y_pitch + r] = block[r * (kTransposeBlock + 1) + c];
  }
}

}  // namespace retort::kernels::cpu
