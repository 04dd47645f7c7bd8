#include "kernels/cpu/convolution.h"

#include <cassert>
#include <cstring>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/round_trip.h"
#include "kernels/cpu/simd.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

ConvGeometry geometry_of(const Shape& x, const Shape& w, const Shape& y, const ConvParams& p) {
  ConvGeometry g;
  g.n = x[0], g.h = x[1], g.w = x[2], g.c = x[3];
  g.oh = y[1], g.ow = y[2], g.o = y[3];
  g.kh = w[1], g.kw = w[2];
  g.stride_h = p.stride_h, g.stride_w = p.stride_w;
  g.pad_h = p.pad_h, g.pad_w = p.pad_w;
  g.dilation_h = p.dilation_h, g.dilation_w = p.dilation_w;
  g.groups = p.groups;
  assert(y[0] == g.n && w[0] == g.o && w[3] * g.groups == g.c);
  assert((g.h + 2 * g.pad_h - g.dilation_h * (g.kh - 1) - 1) / g.stride_h + 1 == g.oh);
  assert((g.w + 2 * g.pad_w - g.dilation_w * (g.kw - 1) - 1) / g.stride_w + 1 == g.ow);
  return g;
}

// A rule by shape, from the measurements in docs/performance-cpu.md, and not a choice timed at run time: a resumed run
// must use the algorithms of the run it resumes. Winograd was faster than direct convolution, 1.1 to 3 times, for all
// shapes measured with at least 16 channels, unless few tiles must pay for transforming the filters or most of the
// outputs of the 4x4 tiles lie outside the image. [n, h, w] is the convolution's output, of which the tiles are made.
bool use_winograd(const ConvGeometry& g, Math math, std::int64_t n, std::int64_t h, std::int64_t w) {
  constexpr std::int64_t kMinTiles = 16, kTileOutputs = 16;
  const bool possible = simd::kNative && g.kh == 3 && g.kw == 3 && g.stride_h == 1 && g.stride_w == 1 &&
                        g.dilation_h == 1 && g.dilation_w == 1 && g.groups == 1 && g.pad_h <= 2 && g.pad_w <= 2 &&
                        g.c % 16 == 0 && g.o % 16 == 0;
  if (math == Math::strict || !possible) return false;
  const std::int64_t tiles = n * ((h + 3) / 4) * ((w + 3) / 4);
  return tiles >= kMinTiles && 2 * n * h * w >= tiles * kTileOutputs;
}

// Where the direct gradient of the weights by our own tiles was measured faster than oneDNN's: 1.2 to 2.3 times for
// strided 3x3 convolutions of 64 channels and more, and for those with 256 and more channels of any stride.
bool use_tiled_backward_weights(const ConvGeometry& g) {
  const bool strided = g.stride_h > 1 || g.stride_w > 1;
  return simd::kNative && g.kh * g.kw >= 9 && g.groups == 1 && g.c % 16 == 0 && g.o % 16 == 0 &&
         g.c * g.o >= 64 * 128 && (strided || g.c * g.o >= 256 * 256);
}

}  // namespace

void CpuBackend::conv2d(ConstView x, ConstView w, const ConvEpilogue& e, const ConvParams& params, View y, Stream) {
  const ConvGeometry g = geometry_of(x.shape, w.shape, y.shape, params);
  if (y.numel() == 0) return;
  if (x.dtype == DType::f64) {
    f64_forward(g, x.as<double>(), w.as<double>(), {e.bias.as<double>(), e.residual.as<double>(), e.act},
                y.as<double>(), *pool_);
    return;
  }
  const AsF32 xf(x, *pool_), wf(w, *pool_), residual(e.residual, *pool_);
  ToF32 yf(y, *pool_);
  auto* const algorithm = use_winograd(g, params.math, g.n, g.oh, g.ow) ? winograd_forward : onednn_forward;
  algorithm(g, xf.data(), wf.data(), {e.bias.as<float>(), residual.data(), e.act}, yf.data(), *pool_);
  yf.finish();
}

void CpuBackend::conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx, Stream) {
  const ConvGeometry g = geometry_of(dx.shape, w.shape, dy.shape, params);
  if (dx.numel() == 0) return;
  if (dy.dtype == DType::f64) {
    f64_backward_data(g, dy.as<double>(), w.as<double>(), dx.as<double>(), *pool_);
    return;
  }
  const AsF32 dyf(dy, *pool_), wf(w, *pool_);
  ToF32 dxf(dx, *pool_);
  auto* const algorithm = use_winograd(g, params.math, g.n, g.h, g.w) ? winograd_backward_data : onednn_backward_data;
  algorithm(g, dyf.data(), wf.data(), dxf.data(), *pool_);
  dxf.finish();
}

void CpuBackend::conv2d_backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream) {
  const ConvGeometry g = geometry_of(x.shape, dw.shape, dy.shape, params);
  if (dw.numel() == 0) return;
  if (x.numel() == 0 || dy.numel() == 0) {  // oneDNN refuses an empty batch
    std::memset(dw.data, 0, dw.bytes());
    return;
  }
  if (x.dtype == DType::f64) {
    f64_backward_weights(g, x.as<double>(), dy.as<double>(), dw.as<double>(), *pool_);
    return;
  }
  const AsF32 xf(x, *pool_), dyf(dy, *pool_);
  ToF32 dwf(dw, *pool_);
  auto* const algorithm = use_winograd(g, params.math, g.n, g.oh, g.ow) ? winograd_backward_weights
                          : use_tiled_backward_weights(g)               ? tiled_backward_weights
                                                                        : onednn_backward_weights;
  algorithm(g, xf.data(), dyf.data(), dwf.data(), *pool_);
  dwf.finish();
}

}  // namespace retort::kernels
