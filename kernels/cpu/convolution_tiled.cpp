// The gradient of the weights of a direct convolution of any kernel, stride and dilation by packed register tiles, f32:
// as the product dw [o, taps c] = dy [pixels, o]^T . x [pixels, taps c], whose operands are gathered block by block
// (im2col of a few dozen pixels at a time, which stay in the second-level cache).
//
// The forward pass and the gradient of the input were tried in the same way: oneDNN is faster.
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/convolution.h"
#include "kernels/cpu/tile_product.h"

namespace retort::kernels {
namespace {

using namespace tile;

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

void tiled_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool) {
  constexpr std::int64_t kBlock = 64;  // pixels
  const std::int64_t depth = g.kh * g.kw * g.c, padded = round_up(depth, kPanel);
  const std::int64_t pixels = g.n * g.oh * g.ow, threads = omp_get_max_threads();
  const std::int64_t s_size = padded * g.o, v_size = padded * kBlock, w_size = g.o * kBlock;
  const Workspace memory(pool, static_cast<std::size_t>(threads * (s_size + v_size + w_size)) * sizeof(float));
  float* const sums = memory.as<float>();
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const std::int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    float* const s = sums + thread * s_size;
    float* const v = sums + threads * s_size + thread * (v_size + w_size);  // [depth / lanes][pixel][lanes]
    float* const rows = v + v_size;                                         // [o / lanes][pixel][lanes]
    const std::int64_t begin = pixels * thread / team, end = pixels * (thread + 1) / team;
    if (begin == end) std::fill(s, s + s_size, 0.0f);
    for (std::int64_t first = begin; first < end; first += kBlock) {
      const std::int64_t count = std::min(kBlock, end - first);
      for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t pixel = first + p;
        const std::int64_t column = pixel % g.ow, line = pixel / g.ow % g.oh, n = pixel / (g.ow * g.oh);
        float* to = v + p * kLanes;
        const std::int64_t top = line * g.stride_h - g.pad_h, left = column * g.stride_w - g.pad_w;
        for (std::int64_t i = top; i < top + g.kh * g.dilation_h; i += g.dilation_h) {
          for (std::int64_t j = left; j < left + g.kw * g.dilation_w; j += g.dilation_w) {
            const bool inside = i >= 0 && i < g.h && j >= 0 && j < g.w;
            const float* const from = x + ((n * g.h + i) * g.w + j) * g.c;
            for (std::int64_t c = 0; c < g.c; c += kLanes, to += kBlock * kLanes) {
              simd::store(to, inside ? simd::load(from + c) : F32{});
            }
          }
        }
        for (std::int64_t o = 0; o < g.o; o += kLanes) {
          simd::store(rows + o * kBlock + p * kLanes, simd::load(dy + pixel * g.o + o));
        }
      }
      for (std::int64_t k = 0; k < depth; k += kPanel) {
        for (std::int64_t o = 0; o < g.o; o += kSumRows) {
          const float* const left = rows + o / kLanes * kLanes * kBlock + o % kLanes;
          float* const to = s + k * g.o + o * kPanel;
          if (depth - k > kLanes) {
            accumulate_products<2>(left, v + k * kBlock, kBlock * kLanes, count, first > begin, to);
          } else {
            accumulate_products<1>(left, v + k * kBlock, kBlock * kLanes, count, first > begin, to);
          }
        }
      }
    }
#pragma omp barrier
#pragma omp for schedule(static)
    for (std::int64_t o = 0; o < g.o; ++o) {
      for (std::int64_t k = 0; k < depth; k += kLanes) {
        const float* const from = sums + k / kPanel * kPanel * g.o + o * kPanel + k % kPanel;
        F32 sum = simd::load(from);
        for (std::int64_t part = 1; part < team; ++part) sum += simd::load(from + part * s_size);
        simd::store(dw + o * depth + k, sum);
      }
    }
  }
}

}  // namespace retort::kernels
