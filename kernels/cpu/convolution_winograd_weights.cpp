// The gradient of the filters of a 3x3 convolution with stride 1 by Winograd F(4x4, 3x3): see winograd.h.
//
// Over blocks of tiles, S[slice] += W[slice]^T V[slice] with V the transformed inputs and W the transformed output
// gradients; S's inverse transform is the gradient.
//
//   V  [slice][c / lanes][tile][lanes]      W  [slice][o / lanes][tile][lanes]      S  [slice][c / panel][o][panel]
//
// Where S is small, each thread has an S of its own and takes its own blocks, small enough that everything stays in its
// second-level cache. Where S is large, there is one S, and the threads share each block: first the tiles to be
// transformed, then the slices to be multiplied.
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/convolution.h"
#include "kernels/cpu/tile_product.h"
#include "kernels/cpu/winograd.h"

namespace retort::kernels {
namespace {

using namespace tile;
using namespace winograd;

constexpr std::int64_t kPrivateSums = 96 * 96;  // channel pairs up to which each thread has its own sums

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

struct Plan {
  std::int64_t across, down, tiles;  // tiles per axis, and of the batch
  std::int64_t block;                // tiles of a block
  std::int64_t panels;               // of c
  std::int64_t v_slice, w_slice, s_slice;
  bool shared;  // blocks are worked on by all threads together
};

// Both transforms for tiles [begin, end) of the block that starts at tile `first`.
void transform_block(const ConvGeometry& g, const Plan& plan, const float* x, const float* dy, const float* zeros,
                     std::int64_t first, std::int64_t begin, std::int64_t end, float* v, float* w) {
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t tile = first + t, n = tile / (plan.across * plan.down);
    const std::int64_t top = tile / plan.across % plan.down * kTile, left = tile % plan.across * kTile;
    const float* pixels[kSlices];
    tile_pixels(x + n * g.h * g.w * g.c, g.h, g.w, g.c, top - g.pad_h, left - g.pad_w, kInput, zeros, pixels);
    for (std::int64_t c = 0; c < g.c; c += kLanes) {
      transform_tile<kInput, input_transform>(pixels, c, v + c * plan.block + t * kLanes, plan.v_slice);
    }
    tile_pixels(dy + n * g.oh * g.ow * g.o, g.oh, g.ow, g.o, top, left, kTile, zeros, pixels);
    for (std::int64_t o = 0; o < g.o; o += kLanes) {
      transform_tile<kTile, output_gradient_transform>(pixels, o, w + o * plan.block + t * kLanes, plan.w_slice);
    }
  }
}

// The products of one slice and panel of a block of `count` tiles.
void multiply_panel(const ConvGeometry& g, const Plan& plan, std::int64_t slice, std::int64_t panel, std::int64_t count,
                    bool add, const float* v, const float* w, float* s) {
  const float* const columns = v + slice * plan.v_slice + panel * kPanel * plan.block;
  float* const sums = s + slice * plan.s_slice + panel * kPanel * g.o;
  const bool both = g.c - panel * kPanel > kLanes;
  for (std::int64_t o = 0; o < g.o; o += kSumRows) {
    const float* const rows = w + slice * plan.w_slice + o / kLanes * kLanes * plan.block + o % kLanes;
    if (both) {
      accumulate_products<2>(rows, columns, plan.block * kLanes, count, add, sums + o * kPanel);
    } else {
      accumulate_products<1>(rows, columns, plan.block * kLanes, count, add, sums + o * kPanel);
    }
  }
}

// dw for output channel o and one vector of input channels, from the sums of `parts` threads.
void transform_sums(const ConvGeometry& g, const Plan& plan, const float* s, std::int64_t parts, std::int64_t o,
                    std::int64_t c, float* dw) {
  const float* const from = s + (c / kPanel * g.o + o) * kPanel + c % kPanel;
  F32 half[3][kInput];
  for (int j = 0; j < kInput; ++j) {
    F32 column_in[kInput], column_out[3];
    for (int i = 0; i < kInput; ++i) {
      const float* const slice = from + (i * kInput + j) * plan.s_slice;
      column_in[i] = simd::load(slice);
      for (std::int64_t part = 1; part < parts; ++part) {
        column_in[i] += simd::load(slice + part * kSlices * plan.s_slice);
      }
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

Plan plan_for(const ConvGeometry& g) {
  Plan plan;
  plan.across = (g.ow + kTile - 1) / kTile;
  plan.down = (g.oh + kTile - 1) / kTile;
  plan.tiles = g.n * plan.across * plan.down;
  plan.panels = (g.c + kPanel - 1) / kPanel;
  plan.shared = g.c * g.o > kPrivateSums;
  plan.block = plan.shared ? 64 : 16;
  plan.v_slice = plan.block * g.c + kPad;
  plan.w_slice = plan.block * g.o + kPad;
  plan.s_slice = plan.panels * kPanel * g.o + kPad;
  return plan;
}

}  // namespace

void winograd_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool) {
  const Plan plan = plan_for(g);
  const std::int64_t threads = omp_get_max_threads(), channels = std::max(g.c, g.o);
  const std::int64_t copies = plan.shared ? 1 : threads;  // of V, W and S
  const std::int64_t s_size = kSlices * plan.s_slice, v_size = kSlices * plan.v_slice, w_size = kSlices * plan.w_slice;
  const Workspace memory(pool,
                         static_cast<std::size_t>(copies * (s_size + v_size + w_size) + channels) * sizeof(float));
  float* const sums = memory.as<float>();
  float* const transformed = sums + copies * s_size;
  float* const zeros = transformed + copies * (v_size + w_size);
  std::fill(zeros, zeros + channels, 0.0f);
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const std::int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    if (plan.shared) {
      float* const v = transformed;
      float* const w = v + v_size;
      const std::int64_t jobs = kSlices * plan.panels;
      for (std::int64_t first = 0; first < plan.tiles; first += plan.block) {
        const std::int64_t count = std::min(plan.block, plan.tiles - first);
        transform_block(g, plan, x, dy, zeros, first, count * thread / team, count * (thread + 1) / team, v, w);
#pragma omp barrier
        for (std::int64_t job = jobs * thread / team; job < jobs * (thread + 1) / team; ++job) {
          multiply_panel(g, plan, job / plan.panels, job % plan.panels, count, first > 0, v, w, sums);
        }
#pragma omp barrier
      }
    } else {
      float* const s = sums + thread * s_size;
      float* const v = transformed + thread * (v_size + w_size);
      float* const w = v + v_size;
      const std::int64_t begin = plan.tiles * thread / team, end = plan.tiles * (thread + 1) / team;
      if (begin == end) std::fill(s, s + s_size, 0.0f);
      for (std::int64_t first = begin; first < end; first += plan.block) {
        const std::int64_t count = std::min(plan.block, end - first);
        transform_block(g, plan, x, dy, zeros, first, 0, count, v, w);
        for (std::int64_t slice = 0; slice < kSlices; ++slice) {
          for (std::int64_t panel = 0; panel < plan.panels; ++panel) {
            multiply_panel(g, plan, slice, panel, count, first > begin, v, w, s);
          }
        }
      }
#pragma omp barrier
    }
#pragma omp for schedule(static) collapse(2)
    for (std::int64_t o = 0; o < g.o; ++o) {
      for (std::int64_t c = 0; c < g.c; c += kLanes) {
        transform_sums(g, plan, sums, plan.shared ? 1 : team, o, c, dw);
      }
    }
  }
}

}  // namespace retort::kernels
