// 3x3 convolution with stride 1 by Winograd F(4x4, 3x3) on plain NHWC: the forward pass, and the gradient of the input,
// which is the same convolution with rotated filters.
//
// Channels are innermost, so the transforms work on whole vectors of channels. Each thread takes blocks of tiles; a
// block's transformed inputs (V) stay in the second-level cache while all output channels are worked through in panels
// of two vectors: 36 products [tiles, in] x [in, panel] into M, whose inverse transform gives the panel's outputs.
//
//   U  transformed filters  [panel][slice][in][2 vectors]
//   V  transformed inputs   [slice][row group][in / lanes][kTileRows][lanes]: the innermost loop runs through it in
//   order M  products             [slice][tile][2 vectors]
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/convolution.h"
#include "kernels/cpu/tile_product.h"
#include "kernels/cpu/winograd.h"

namespace retort::kernels {
namespace {

using namespace tile;
using namespace winograd;

// The convolution to be done: in [n, h, w, c] -> out [n, oh, ow, o].
struct Problem {
  std::int64_t n, h, w, c, oh, ow, o;
  std::int64_t pad_h, pad_w;
  std::int64_t tiles_h() const { return (oh + kTile - 1) / kTile; }
  std::int64_t tiles_w() const { return (ow + kTile - 1) / kTile; }
  std::int64_t tiles() const { return n * tiles_h() * tiles_w(); }
  std::int64_t panels() const { return (o + kPanel - 1) / kPanel; }
  std::int64_t u_slice() const { return c * kPanel + kPad; }
};

// The U of one panel, for input channels [first, first + kLanes). weight(in, out, tap, vector of out) reads the
// filters.
template <typename Weights>
void transform_filters(const Problem& p, std::int64_t panel, std::int64_t first, const Weights& weights, float* u) {
  for (int half = 0; half < 2; ++half) {
    const std::int64_t out = panel * kPanel + half * kLanes;
    float taps[9][kLanes][kLanes] = {};  // [tap][in][out]
    if (out < p.o) weights(first, out, taps);
    for (int i = 0; i < kLanes; ++i) {
      F32 half_done[kInput][3], g[3][3], result[kInput];
      for (int t = 0; t < 9; ++t) g[t % 3][t / 3] = simd::load(taps[t][i]);
      for (int j = 0; j < 3; ++j) {
        filter_transform(g[j], result);
        for (int k = 0; k < kInput; ++k) half_done[k][j] = result[k];
      }
      for (int k = 0; k < kInput; ++k) {
        filter_transform(half_done[k], result);
        for (int l = 0; l < kInput; ++l) {
          simd::store(u + (k * kInput + l) * p.u_slice() + (first + i) * kPanel + half * kLanes, result[l]);
        }
      }
    }
  }
}

// V for tiles [begin, end) of a block that starts at tile `first`.
void transform_inputs(const Problem& p, const float* in, const float* zeros, std::int64_t first, std::int64_t begin,
                      std::int64_t end, std::int64_t slice_pitch, float* v) {
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t tile = first + t, column = tile % p.tiles_w(), row = tile / p.tiles_w() % p.tiles_h();
    const float* const image = in + tile / (p.tiles_w() * p.tiles_h()) * p.h * p.w * p.c;
    const float* pixels[kSlices];
    tile_pixels(image, p.h, p.w, p.c, row * kTile - p.pad_h, column * kTile - p.pad_w, kInput, zeros, pixels);
    float* to = v + t / kTileRows * kTileRows * p.c + t % kTileRows * kLanes;
    for (std::int64_t c = 0; c < p.c; c += kLanes, to += kTileRows * kLanes) {
      F32 half[kInput][kInput];
#pragma GCC unroll 6
      for (int j = 0; j < kInput; ++j) {
        F32 column_in[kInput], column_out[kInput];
#pragma GCC unroll 6
        for (int i = 0; i < kInput; ++i) column_in[i] = simd::load(pixels[i * kInput + j] + c);
        input_transform(column_in, column_out);
#pragma GCC unroll 6
        for (int i = 0; i < kInput; ++i) half[i][j] = column_out[i];
      }
#pragma GCC unroll 6
      for (int i = 0; i < kInput; ++i) {
        F32 row_out[kInput];
        input_transform(half[i], row_out);
#pragma GCC unroll 6
        for (int j = 0; j < kInput; ++j) simd::store(to + (i * kInput + j) * slice_pitch, row_out[j]);
      }
    }
  }
}

template <Activation act, bool has_residual>
void transform_outputs_as(const Problem& p, const float* m, std::int64_t slice_pitch, std::int64_t first_tile,
                          std::int64_t count, std::int64_t panel, const Epilogue<float>& epilogue, float* out) {
  const int halves = p.o - panel * kPanel > kLanes ? 2 : 1;
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t tile = first_tile + t, column = tile % p.tiles_w(), row = tile / p.tiles_w() % p.tiles_h();
    const std::int64_t n = tile / (p.tiles_w() * p.tiles_h());
    const std::int64_t height = std::min<std::int64_t>(kTile, p.oh - row * kTile);
    const std::int64_t width = std::min<std::int64_t>(kTile, p.ow - column * kTile);
    for (int h = 0; h < halves; ++h) {
      const float* const from = m + t * kPanel + h * kLanes;
      const std::int64_t channel = panel * kPanel + h * kLanes;
      const std::int64_t corner = ((n * p.oh + row * kTile) * p.ow + column * kTile) * p.o + channel;
      F32 half[kTile][kInput];
#pragma GCC unroll 6
      for (int j = 0; j < kInput; ++j) {
        F32 column_in[kInput], column_out[kTile];
#pragma GCC unroll 6
        for (int i = 0; i < kInput; ++i) column_in[i] = simd::load(from + (i * kInput + j) * slice_pitch);
        output_transform(column_in, column_out);
#pragma GCC unroll 6
        for (int i = 0; i < kTile; ++i) half[i][j] = column_out[i];
      }
      const F32 offset = epilogue.bias != nullptr ? simd::load(epilogue.bias + channel) : F32{};
      const auto finish = [&](std::int64_t i, std::int64_t j, F32 sum) {
        const std::int64_t at = corner + (i * p.ow + j) * p.o;
        F32 value = sum + offset;
        if constexpr (has_residual) value += simd::load(epilogue.residual + at);
        simd::store(out + at, cpu::activate<act>(value));
      };
      for (int i = 0; i < height; ++i) {
        F32 row_out[kTile];
        output_transform(half[i], row_out);
        if (width == kTile) {
#pragma GCC unroll 4
          for (int j = 0; j < kTile; ++j) finish(i, j, row_out[j]);
        } else {
          for (int j = 0; j < width; ++j) finish(i, j, row_out[j]);
        }
      }
    }
  }
}

void transform_outputs(const Problem& p, const float* m, std::int64_t slice_pitch, std::int64_t first_tile,
                       std::int64_t count, std::int64_t panel, const Epilogue<float>& epilogue, float* out) {
  cpu::dispatch_activation(epilogue.act, [&](auto kind) {
    constexpr Activation act = decltype(kind)::value;
    if (epilogue.residual != nullptr) {
      transform_outputs_as<act, true>(p, m, slice_pitch, first_tile, count, panel, epilogue, out);
    } else {
      transform_outputs_as<act, false>(p, m, slice_pitch, first_tile, count, panel, epilogue, out);
    }
  });
}

// M = V x U for one slice and panel.
void multiply_slice(const Problem& p, std::int64_t tiles, const float* v, const float* u, float* m) {
  for (std::int64_t t = 0; t < tiles; t += kTileRows) {
    multiply_group(tiles - t, v + t * p.c, u, p.c / kLanes, m + t * kPanel);
  }
}

// Many tiles: U is made first, then each thread takes blocks of tiles. V and M of a block stay in the second-level
// cache for up to 128 channels.
template <typename Weights>
void convolve_by_tiles(const Problem& p, const float* in, const Epilogue<float>& epilogue, float* out, MemoryPool& pool,
                       const Weights& weights) {
  const std::int64_t block = (p.c <= 128 ? 2 : 8) * kTileRows, threads = omp_get_max_threads();
  const std::int64_t u_panel = kSlices * p.u_slice(), u_size = p.panels() * u_panel;
  const std::int64_t v_slice = block * p.c + kPad, m_slice = block * kPanel + kPad;
  const std::int64_t thread_size = kSlices * (v_slice + m_slice);
  const Workspace memory(pool, static_cast<std::size_t>(u_size + threads * thread_size + p.c) * sizeof(float));
  float* const u = memory.as<float>();
  float* const zeros = u + u_size + threads * thread_size;
  std::fill(zeros, zeros + p.c, 0.0f);
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
#pragma omp for collapse(2) schedule(static)
    for (std::int64_t panel = 0; panel < p.panels(); ++panel) {
      for (std::int64_t first = 0; first < p.c; first += kLanes) {
        transform_filters(p, panel, first, weights, u + panel * u_panel);
      }
    }
    const std::int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    const std::int64_t end = p.tiles() * (thread + 1) / team;
    float* const v = u + u_size + thread * thread_size;
    float* const m = v + kSlices * v_slice;
    for (std::int64_t first = p.tiles() * thread / team; first < end; first += block) {
      const std::int64_t count = std::min(block, end - first);
      transform_inputs(p, in, zeros, first, 0, count, v_slice, v);
      for (std::int64_t panel = 0; panel < p.panels(); ++panel) {
        for (std::int64_t slice = 0; slice < kSlices; ++slice) {
          multiply_slice(p, count, v + slice * v_slice, u + panel * u_panel + slice * p.u_slice(), m + slice * m_slice);
        }
        transform_outputs(p, m, m_slice, first, count, panel, epilogue, out);
      }
    }
  }
}

// Few tiles and many channels, where U (38 MB for 512 channels) would go through main memory and cost more than the
// products: all threads make V of the whole batch, then each takes panels, making a panel's U just before its use.
template <typename Weights>
void convolve_by_panels(const Problem& p, const float* in, const Epilogue<float>& epilogue, float* out,
                        MemoryPool& pool, const Weights& weights) {
  const std::int64_t tiles = p.tiles(), threads = omp_get_max_threads();
  const std::int64_t v_slice = (tiles + kTileRows) * p.c + kPad, m_slice = (tiles + kTileRows) * kPanel + kPad;
  const std::int64_t v_size = kSlices * v_slice, thread_size = kSlices * (p.u_slice() + m_slice);
  const Workspace memory(pool, static_cast<std::size_t>(v_size + threads * thread_size + p.c) * sizeof(float));
  float* const v = memory.as<float>();
  float* const zeros = v + v_size + threads * thread_size;
  std::fill(zeros, zeros + p.c, 0.0f);
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const std::int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    transform_inputs(p, in, zeros, 0, tiles * thread / team, tiles * (thread + 1) / team, v_slice, v);
#pragma omp barrier
    float* const u = v + v_size + thread * thread_size;
    float* const m = u + kSlices * p.u_slice();
#pragma omp for schedule(static)
    for (std::int64_t panel = 0; panel < p.panels(); ++panel) {
      for (std::int64_t first = 0; first < p.c; first += kLanes) transform_filters(p, panel, first, weights, u);
      for (std::int64_t slice = 0; slice < kSlices; ++slice) {
        multiply_slice(p, tiles, v + slice * v_slice, u + slice * p.u_slice(), m + slice * m_slice);
      }
      transform_outputs(p, m, m_slice, 0, tiles, panel, epilogue, out);
    }
  }
}

template <typename Weights>
void convolve(const Problem& p, const float* in, const Epilogue<float>& epilogue, float* out, MemoryPool& pool,
              const Weights& weights) {
  if (p.tiles() <= 128 && p.c * p.o >= 256 * 256) {
    convolve_by_panels(p, in, epilogue, out, pool, weights);
  } else {
    convolve_by_tiles(p, in, epilogue, out, pool, weights);
  }
}

}  // namespace

void winograd_forward(const ConvGeometry& g, const float* x, const float* w, const Epilogue<float>& epilogue, float* y,
                      MemoryPool& pool) {
  const Problem p{g.n, g.h, g.w, g.c, g.oh, g.ow, g.o, g.pad_h, g.pad_w};
  convolve(p, x, epilogue, y, pool, [&](std::int64_t in, std::int64_t out, float(*taps)[kLanes][kLanes]) {
    for (int o = 0; o < kLanes; ++o) {
      for (int t = 0; t < 9; ++t) {
        const float* const from = w + ((out + o) * 9 + t) * g.c + in;
        for (int i = 0; i < kLanes; ++i) taps[t][i][o] = from[i];
      }
    }
  });
}

void winograd_backward_data(const ConvGeometry& g, const float* dy, const float* w, float* dx, MemoryPool& pool) {
  const Problem p{g.n, g.oh, g.ow, g.o, g.h, g.w, g.c, 2 - g.pad_h, 2 - g.pad_w};
  convolve(p, dy, {}, dx, pool, [&](std::int64_t in, std::int64_t out, float(*taps)[kLanes][kLanes]) {
    for (int o = 0; o < kLanes; ++o) {
      for (int t = 0; t < 9; ++t) {
        simd::store(taps[8 - t][o], simd::load(w + ((in + o) * 9 + t) * g.c + out));
      }
    }
  });
}

}  // namespace retort::kernels
