// Register tiles of the blocked f32 convolutions (Winograd's and the direct ones): operands are packed in the order in
// which they are read.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace retort::kernels::tile {

using simd::F32;
using simd::kLanes;
using simd::prefetch;

inline constexpr int kPanel = 2 * kLanes;                    // columns of a tile
inline constexpr int kSumRows = kVectorBytes == 64 ? 8 : 4;  // rows of a tile in products of columns
inline constexpr std::int64_t kAhead = 8;                    // rows to prefetch ahead in products of columns

// Keeps slices that are written and read together from falling into the same sets of the caches.
inline constexpr std::int64_t kPad = 3 * kLanes;

// product [kRows][kPanel] = v x u, for kRows rows of a group: v [channel block][kTileRows][kLanes], u
// [channel][kPanel]. V and U lie one behind the other in memory, but the hardware fetches them into the first-level
// cache too late: asking for the next block of channels is worth 20 %.
template <int kRows>
void multiply(const float* v, const float* u, std::int64_t channel_blocks, float* product) {
  F32 sum[kRows][2] = {};
  for (std::int64_t block = 0; block < channel_blocks; ++block) {
#pragma GCC unroll 4
    for (int k = 0; k < kLanes; ++k) {
      prefetch(u + (k + kLanes) * kPanel);
      prefetch(u + (k + kLanes) * kPanel + kLanes);
      if (k < kRows) prefetch(v + (kTileRows + k) * kLanes);
      const F32 u0 = simd::load(u + k * kPanel), u1 = simd::load(u + k * kPanel + kLanes);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        sum[m][0] += v[m * kLanes + k] * u0;
        sum[m][1] += v[m * kLanes + k] * u1;
      }
    }
    u += kLanes * kPanel;
    v += kTileRows * kLanes;
  }
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    simd::store(product + m * kPanel, sum[m][0]);
    simd::store(product + m * kPanel + kLanes, sum[m][1]);
  }
}

// `rows` of them count; up to the next third of a group is computed.
inline void multiply_group(std::int64_t rows, const float* v, const float* u, std::int64_t channel_blocks,
                           float* product) {
  if (rows > kTileRows * 2 / 3) {
    multiply<kTileRows>(v, u, channel_blocks, product);
  } else if (rows > kTileRows / 3) {
    multiply<kTileRows * 2 / 3>(v, u, channel_blocks, product);
  } else {
    multiply<kTileRows / 3>(v, u, channel_blocks, product);
  }
}

// sums [kSumRows][kPanel] = or += sum over t < count of w[t][row] * v[t][vector]: products of columns, for gradients of
// weights. w and v [count][kLanes]; a second vector of v lies v_pitch further.
template <int kVectors>
void accumulate_products(const float* w, const float* v, std::int64_t v_pitch, std::int64_t count, bool add,
                         float* sums) {
  F32 sum[kSumRows][kVectors] = {};
  if (add) {
#pragma GCC unroll 8
    for (int m = 0; m < kSumRows; ++m) {
      for (int j = 0; j < kVectors; ++j) sum[m][j] = simd::load(sums + m * kPanel + j * kLanes);
    }
  }
#pragma GCC unroll 2
  for (std::int64_t t = 0; t < count; ++t) {
    F32 columns[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      prefetch(v + j * v_pitch + (t + kAhead) * kLanes);
      columns[j] = simd::load(v + j * v_pitch + t * kLanes);
    }
    prefetch(w + (t + kAhead) * kLanes);
    if (t < kSumRows * 2) prefetch(sums + (kSumRows * 2 + t) * kLanes);  // the next call's sums
#pragma GCC unroll 8
    for (int m = 0; m < kSumRows; ++m) {
      for (int j = 0; j < kVectors; ++j) sum[m][j] += w[t * kLanes + m] * columns[j];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kSumRows; ++m) {
    for (int j = 0; j < kVectors; ++j) simd::store(sums + m * kPanel + j * kLanes, sum[m][j]);
  }
}

}  // namespace retort::kernels::tile
