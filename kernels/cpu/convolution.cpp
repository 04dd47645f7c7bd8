#include "kernels/cpu/convolution.h"

#include <cassert>
#include <cstring>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/round_trip.h"
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
  g.groups = p.groups;
  assert(y[0] == g.n && w[0] == g.o && w[3] * g.groups == g.c);
  assert((g.h + 2 * g.pad_h - g.kh) / g.stride_h + 1 == g.oh && (g.w + 2 * g.pad_w - g.kw) / g.stride_w + 1 == g.ow);
  return g;
}

bool use_winograd(const ConvGeometry& g, Math math) {
  if (math == Math::strict) return false;
  const bool possible = g.kh == 3 && g.kw == 3 && g.stride_h == 1 && g.stride_w == 1 && g.groups == 1 && g.pad_h <= 2 &&
                        g.pad_w <= 2 && g.c % 16 == 0 && g.o % 16 == 0;
  return possible;
}

}  // namespace

void CpuBackend::conv2d(ConstView x, ConstView w, ConstView bias, const ConvParams& params, View y, Stream) {
  const ConvGeometry g = geometry_of(x.shape, w.shape, y.shape, params);
  if (y.numel() == 0) return;
  if (x.dtype == DType::f64) {
    f64_forward(g, x.as<double>(), w.as<double>(), bias.as<double>(), y.as<double>(), *pool_);
    return;
  }
  const AsF32 xf(x, *pool_), wf(w, *pool_);
  ToF32 yf(y, *pool_);
  (use_winograd(g, params.math) ? winograd_forward : onednn_forward)(g, xf.data(), wf.data(), bias.as<float>(),
                                                                     yf.data(), *pool_);
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
  (use_winograd(g, params.math) ? winograd_backward_data : onednn_backward_data)(g, dyf.data(), wf.data(), dxf.data(),
                                                                                 *pool_);
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
  (use_winograd(g, params.math) ? winograd_backward_weights : onednn_backward_weights)(g, xf.data(), dyf.data(),
                                                                                       dwf.data(), *pool_);
  dwf.finish();
}

}  // namespace retort::kernels
