// Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks"):
// a tile of 4x4 outputs of a 3x3 convolution from 6x6 inputs d and the filter g by 36 products instead of 144,
//
//   y = A^T [ (G g G^T) . (B^T d B) ] A        and for the filter's gradient   dg = G^T [ (A dy A^T) . (B^T d B) ] G.
//
// The interpolation points are 0, +-a, +-b and infinity. Those below keep the largest error at 1.5e-6 (64 channels) to
// 5e-6 (512 channels) of the largest output, a quarter of what the paper's a = 1, b = 2 gives; direct f32 sums
// reach 1e-6 to 2e-6 (measured on normal data).
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace retort::kernels::winograd {

using simd::F32;

inline constexpr int kTile = 4;                  // outputs per axis
inline constexpr int kInput = 6;                 // inputs per axis
inline constexpr int kSlices = kInput * kInput;  // products per tile and channel pair
inline constexpr float kA = 0.625f, kB = 1.5f;
inline constexpr float kA2 = kA * kA, kB2 = kB * kB;
inline constexpr float kA3 = kA2 * kA, kB3 = kB2 * kB;
inline constexpr float kNorm0 = 1.0f / (kA2 * kB2);
inline constexpr float kNormA = 1.0f / (2.0f * kA2 * (kA2 - kB2));
inline constexpr float kNormB = 1.0f / (2.0f * kB2 * (kB2 - kA2));

// out = B^T d: 6 from 6.
inline void input_transform(const F32 d[kInput], F32 out[kInput]) {
  const F32 even_a = d[4] - kB2 * d[2], odd_a = kA * (d[3] - kB2 * d[1]);
  const F32 even_b = d[4] - kA2 * d[2], odd_b = kB * (d[3] - kA2 * d[1]);
  out[0] = (kA2 * kB2) * d[0] + (d[4] - (kA2 + kB2) * d[2]);
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = (kA2 * kB2) * d[1] + (d[5] - (kA2 + kB2) * d[3]);
}

// out = G g: 6 from 3.
inline void filter_transform(const F32 g[3], F32 out[kInput]) {
  const F32 even_a = kNormA * g[0] + (kNormA * kA2) * g[2], odd_a = (kNormA * kA) * g[1];
  const F32 even_b = kNormB * g[0] + (kNormB * kB2) * g[2], odd_b = (kNormB * kB) * g[1];
  out[0] = kNorm0 * g[0];
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = g[2];
}

// out = A^T m: 4 from 6.
inline void output_transform(const F32 m[kInput], F32 out[kTile]) {
  const F32 sum_a = m[1] + m[2], difference_a = m[1] - m[2];
  const F32 sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  out[0] = m[0] + (sum_a + sum_b);
  out[1] = kA * difference_a + kB * difference_b;
  out[2] = kA2 * sum_a + kB2 * sum_b;
  out[3] = kA3 * difference_a + (kB3 * difference_b + m[5]);
}

// out = A y: 6 from 4.
inline void output_gradient_transform(const F32 y[kTile], F32 out[kInput]) {
  const F32 even_a = y[0] + kA2 * y[2], odd_a = kA * y[1] + kA3 * y[3];
  const F32 even_b = y[0] + kB2 * y[2], odd_b = kB * y[1] + kB3 * y[3];
  out[0] = y[0];
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = y[3];
}

// out = G^T s: 3 from 6.
inline void filter_gradient_transform(const F32 s[kInput], F32 out[3]) {
  const F32 sum_a = kNormA * (s[1] + s[2]), difference_a = (kNormA * kA) * (s[1] - s[2]);
  const F32 sum_b = kNormB * (s[3] + s[4]), difference_b = (kNormB * kB) * (s[3] - s[4]);
  out[0] = kNorm0 * s[0] + (sum_a + sum_b);
  out[1] = difference_a + difference_b;
  out[2] = kA2 * sum_a + (kB2 * sum_b + s[5]);
}

// Pixels of the input tile at (top, left) of image n, as pointers to channel 0; `zeros` stands in for padding.
inline void tile_pixels(const float* image, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t top,
                        std::int64_t left, int size, const float* zeros, const float** pixels) {
  for (std::int64_t i = top; i < top + size; ++i) {
    for (std::int64_t j = left; j < left + size; ++j) {
      *pixels++ = i >= 0 && i < h && j >= 0 && j < w ? image + (i * w + j) * c : zeros;
    }
  }
}

}  // namespace retort::kernels::winograd
