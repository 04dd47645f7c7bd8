// The gradient of the filters of a 3x3 convolution with stride 1 by Winograd F(4x4, 3x3): see winograd.h.
//
// Over blocks of tiles, S[slice] += W[slice]^T V[slice] with V the transformed inputs and W the transformed output
// gradients; S's inverse transform is the gradient. Each thread sums its own tiles into its own S.
//
//   V  [slice][c / lanes][tile][lanes]      W  [slice][o / lanes][tile][lanes]      S  [thread][slice][o][c]
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/convolution.h"
#include "kernels/cpu/winograd.h"

namespace retort::kernels {
namespace {

using namespace winograd;
using simd::kLanes;

constexpr int kRows = kVectorBytes == 64 ? 8 : 4;  // output channels of a register tile, by two vectors of inputs

// to[slice * pitch] for the transformed kSize x kSize tile of pixels, one vector of channels.
template <int kSize, void (*transform)(const F32*, F32*)>
void transform_tile(const float* const* pixels, std::int64_t channel, float* to, std::int64_t pitch) {
  F32 half[kInput][kSize];
#pragma GCC unroll 6
  for (int j = 0; j < kSize; ++j) {
    F32 column_in[kSize], column_out[kInput];
#pragma GCC unroll 6
    for (int i = 0; i < kSize; ++i) column_in[i] = simd::load(pixels[i * kSize + j] + channel);
    transform(column_in, column_out);
#pragma GCC unroll 6
    for (int i = 0; i < kInput; ++i) half[i][j] = column_out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < kInput; ++i) {
    F32 row_out[kInput];
    transform(half[i], row_out);
#pragma GCC unroll 6
    for (int j = 0; j < kInput; ++j) simd::store(to + (i * kInput + j) * pitch, row_out[j]);
  }
}

// sums[row * pitch + vector] += sum over tiles of w[tile][row] * v[tile][vector].
template <int kVectors>
void accumulate_products(const float* w, const float* v, std::int64_t v_pitch, std::int64_t tiles, float* sums,
                         std::int64_t pitch) {
  F32 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
    for (int j = 0; j < kVectors; ++j) sum[m][j] = simd::load(sums + m * pitch + j * kLanes);
  }
#pragma GCC unroll 2
  for (std::int64_t t = 0; t < tiles; ++t) {
    F32 columns[kVectors];
    for (int j = 0; j < kVectors; ++j) columns[j] = simd::load(v + j * v_pitch + t * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      for (int j = 0; j < kVectors; ++j) sum[m][j] += w[t * kLanes + m] * columns[j];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
    for (int j = 0; j < kVectors; ++j) simd::store(sums + m * pitch + j * kLanes, sum[m][j]);
  }
}

struct Tiling {
  std::int64_t across, down, total, block;
};

// One block of tiles of one thread: both transforms, then the products of every slice.
void accumulate_block(const ConvGeometry& g, const Tiling& tiling, const float* x, const float* dy, const float* zeros,
                      std::int64_t first, std::int64_t count, float* v, float* w, float* s) {
  const std::int64_t v_pitch = tiling.block * g.c, w_pitch = tiling.block * g.o;  // of slices
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t tile = first + t, n = tile / (tiling.across * tiling.down);
    const std::int64_t top = tile / tiling.across % tiling.down * kTile, left = tile % tiling.across * kTile;
    const float* pixels[kSlices];
    tile_pixels(x + n * g.h * g.w * g.c, g.h, g.w, g.c, top - g.pad_h, left - g.pad_w, kInput, zeros, pixels);
    for (std::int64_t c = 0; c < g.c; c += kLanes) {
      transform_tile<kInput, input_transform>(pixels, c, v + c * tiling.block + t * kLanes, v_pitch);
    }
    tile_pixels(dy + n * g.oh * g.ow * g.o, g.oh, g.ow, g.o, top, left, kTile, zeros, pixels);
    for (std::int64_t o = 0; o < g.o; o += kLanes) {
      transform_tile<kTile, output_gradient_transform>(pixels, o, w + o * tiling.block + t * kLanes, w_pitch);
    }
  }
  for (std::int64_t slice = 0; slice < kSlices; ++slice) {
    for (std::int64_t c = 0; c < g.c; c += 2 * kLanes) {
      const float* const columns = v + slice * v_pitch + c * tiling.block;
      for (std::int64_t o = 0; o < g.o; o += kRows) {
        const float* const rows = w + slice * w_pitch + o / kLanes * kLanes * tiling.block + o % kLanes;
        float* const sums = s + (slice * g.o + o) * g.c + c;
        if (g.c - c > kLanes) {
          accumulate_products<2>(rows, columns, tiling.block * kLanes, count, sums, g.c);
        } else {
          accumulate_products<1>(rows, columns, tiling.block * kLanes, count, sums, g.c);
        }
      }
    }
  }
}

}  // namespace

void winograd_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool) {
  Tiling tiling;
  tiling.across = (g.ow + kTile - 1) / kTile;
  tiling.down = (g.oh + kTile - 1) / kTile;
  tiling.total = g.n * tiling.across * tiling.down;
  tiling.block = 32;
  const std::int64_t threads = omp_get_max_threads(), channels = std::max(g.c, g.o);
  const std::int64_t s_size = kSlices * g.o * g.c, block_size = kSlices * tiling.block * (g.c + g.o);
  const Workspace memory(pool, static_cast<std::size_t>(threads * (s_size + block_size) + channels) * sizeof(float));
  float* const sums = memory.as<float>();
  float* const zeros = sums + threads * (s_size + block_size);
  std::fill(zeros, zeros + channels, 0.0f);
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const std::int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    const std::int64_t end = tiling.total * (thread + 1) / team;
    float* const s = sums + thread * s_size;
    float* const v = sums + threads * s_size + thread * block_size;
    float* const w = v + kSlices * tiling.block * g.c;
    std::fill(s, s + s_size, 0.0f);
    for (std::int64_t first = tiling.total * thread / team; first < end; first += tiling.block) {
      accumulate_block(g, tiling, x, dy, zeros, first, std::min(tiling.block, end - first), v, w, s);
    }
#pragma omp barrier
#pragma omp for schedule(static) collapse(2)
    for (std::int64_t o = 0; o < g.o; ++o) {
      for (std::int64_t c = 0; c < g.c; c += kLanes) {
        F32 half[3][kInput];
        for (int j = 0; j < kInput; ++j) {
          F32 column_in[kInput], column_out[3];
          for (int i = 0; i < kInput; ++i) {
            const float* const from = sums + ((i * kInput + j) * g.o + o) * g.c + c;
            column_in[i] = simd::load(from);
            for (std::int64_t other = 1; other < team; ++other) column_in[i] += simd::load(from + other * s_size);
          }
          filter_gradient_transform(column_in, column_out);
          for (int i = 0; i < 3; ++i) half[i][j] = column_out[i];
        }
        for (int i = 0; i < 3; ++i) {
          F32 row_out[3];
          filter_gradient_transform(half[i], row_out);
          for (int j = 0; j < 3; ++j) simd::store(dw + ((o * 3 + i) * 3 + j) * g.c + c, row_out[j]);
        }
      }
    }
  }
}

}  // namespace retort::kernels
