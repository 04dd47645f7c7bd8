// The inner loop of every hand-written product and convolution on the CPU:
//
//   tile[m, n] = sum over t < taps, k < depth of rows[t][m][k] * panel[t, k, n],   m < kRows, n < kColumns
//
// Rows are given by pointers, so a convolution needs no im2col: a tap of an output pixel is a pointer to an input
// pixel, and padding is a pointer to zeros. The tile lives in registers. Sums run in the order of (t, k).
#pragma once

#include <cstdint>
#include <cstring>

namespace retort::kernels {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kTileRows = 12;  // 24 of 32 registers hold the tile
#else
inline constexpr int kVectorBytes = 32;
inline constexpr int kTileRows = 6;  // 12 of 16
#endif

template <typename T>
struct RowProduct {
  typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(sizeof(T))));

  static constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kLanes * kVectors;
  static constexpr int kRows = kTileRows;

  Vector tile[kRows][kVectors];

  static Vector load(const T* from) { return *reinterpret_cast<const Vector*>(from); }

  // rows [taps][kRows], panel [taps, depth, kColumns].
  void multiply(const T* const* rows, std::int64_t taps, std::int64_t depth, const T* panel) {
    Vector sum[kRows][kVectors] = {};
    for (std::int64_t t = 0; t < taps; ++t, rows += kRows) {
      for (std::int64_t k = 0; k < depth; ++k, panel += kColumns) {
        const Vector b0 = load(panel), b1 = load(panel + kLanes);
#pragma GCC unroll 16
        for (int m = 0; m < kRows; ++m) {
          sum[m][0] += rows[m][k] * b0;
          sum[m][1] += rows[m][k] * b1;
        }
      }
    }
    std::memcpy(tile, sum, sizeof tile);
  }

  // tile[m, n] = sum over p < count of left[p][m] * right[p][n]: products of columns, for the gradients of weights.
  void multiply_columns(const T* const* left, const T* const* right, std::int64_t count) {
    Vector sum[kRows][kVectors] = {};
    for (std::int64_t p = 0; p < count; ++p) {
      const Vector b0 = load(right[p]), b1 = load(right[p] + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < kRows; ++m) {
        sum[m][0] += left[p][m] * b0;
        sum[m][1] += left[p][m] * b1;
      }
    }
    std::memcpy(tile, sum, sizeof tile);
  }

  const T* row(int m) const {
    return reinterpret_cast<const T*>(tile[m]);
  }
};

}  // namespace retort::kernels
