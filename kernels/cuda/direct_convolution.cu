#include "kernels/cuda/common.h"
#include "kernels/cuda/direct_convolution.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {
namespace {

struct Geometry {
  std::int64_t n, h, w, c;  // input
  std::int64_t oh, ow, o;   // output
  std::int64_t kh, kw;      // kernel
  std::int64_t c_group;     // input channels a group
  std::int64_t o_group;     // output channels a group
  std::int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

Geometry geometry(const Shape& x, const Shape& w, const Shape& y, const ConvParams& params) {
  return {x[0],
          x[1],
          x[2],
          x[3],
          y[1],
          y[2],
          w[0],
          w[1],
          w[2],
          w[3],
          w[0] / params.groups,
          params.stride_h,
          params.stride_w,
          params.pad_h,
          params.pad_w,
          params.dilation_h,
          params.dilation_w};
}

// ConvEpilogue with typed pointers.
template <typename T>
struct Epilogue {
  const Accumulation<T>* bias;
  const T* residual;
  Activation act;

  explicit Epilogue(const ConvEpilogue& e)
      : bias(e.bias.as<Accumulation<T>>()), residual(e.residual.as<T>()), act(e.act) {}
};

template <typename T>
__global__ void forward_kernel(const T* x, const T* w, Epilogue<T> epilogue, T* y, Geometry g) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= g.n * g.oh * g.ow * g.o) return;
  const std::int64_t o = index % g.o;
  const std::int64_t ow = index / g.o % g.ow;
  const std::int64_t oh = index / (g.o * g.ow) % g.oh;
  const std::int64_t n = index / (g.o * g.ow * g.oh);
  const std::int64_t first = o / g.o_group * g.c_group;
  Accumulation<T> sum = 0;
  for (std::int64_t kh = 0; kh < g.kh; ++kh) {
    const std::int64_t h = oh * g.stride_h - g.pad_h + kh * g.dilation_h;
    if (h < 0 || h >= g.h) continue;
    for (std::int64_t kw = 0; kw < g.kw; ++kw) {
      const std::int64_t iw = ow * g.stride_w - g.pad_w + kw * g.dilation_w;
      if (iw < 0 || iw >= g.w) continue;
      const T* pixel = x + ((n * g.h + h) * g.w + iw) * g.c + first;
      const T* weight = w + ((o * g.kh + kh) * g.kw + kw) * g.c_group;
      for (std::int64_t c = 0; c < g.c_group; ++c) {
        sum += static_cast<Accumulation<T>>(pixel[c]) * static_cast<Accumulation<T>>(weight[c]);
      }
    }
  }
  if (epilogue.bias != nullptr) sum += epilogue.bias[o];
  if (epilogue.residual != nullptr) sum += static_cast<Accumulation<T>>(epilogue.residual[index]);
  y[index] = narrow<T>(activate(sum, epilogue.act));
}

template <typename T>
__global__ void backward_data_kernel(const T* dy, const T* w, T* dx, bool accumulate, Geometry g) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= g.n * g.h * g.w * g.c) return;
  const std::int64_t c = index % g.c;
  const std::int64_t iw = index / g.c % g.w;
  const std::int64_t h = index / (g.c * g.w) % g.h;
  const std::int64_t n = index / (g.c * g.w * g.h);
  const std::int64_t first = c / g.c_group * g.o_group;
  Accumulation<T> sum = accumulate ? static_cast<Accumulation<T>>(dx[index]) : 0;
  for (std::int64_t kh = 0; kh < g.kh; ++kh) {
    const std::int64_t up = h + g.pad_h - kh * g.dilation_h;
    if (up < 0 || up % g.stride_h != 0 || up / g.stride_h >= g.oh) continue;
    for (std::int64_t kw = 0; kw < g.kw; ++kw) {
      const std::int64_t left = iw + g.pad_w - kw * g.dilation_w;
      if (left < 0 || left % g.stride_w != 0 || left / g.stride_w >= g.ow) continue;
      const T* gradient = dy + ((n * g.oh + up / g.stride_h) * g.ow + left / g.stride_w) * g.o + first;
      for (std::int64_t j = 0; j < g.o_group; ++j) {
        const T weight = w[(((first + j) * g.kh + kh) * g.kw + kw) * g.c_group + c % g.c_group];
        sum += static_cast<Accumulation<T>>(gradient[j]) * static_cast<Accumulation<T>>(weight);
      }
    }
  }
  dx[index] = narrow<T>(sum);
}

// One block a weight: its threads share the output pixels and add up in a fixed order.
template <typename T>
__global__ void backward_weights_kernel(const T* x, const T* dy, T* dw, Geometry g) {
  const std::int64_t index = blockIdx.x;
  const std::int64_t c = index % g.c_group;
  const std::int64_t kw = index / g.c_group % g.kw;
  const std::int64_t kh = index / (g.c_group * g.kw) % g.kh;
  const std::int64_t o = index / (g.c_group * g.kw * g.kh);
  const std::int64_t channel = o / g.o_group * g.c_group + c;
  Accumulation<T> sum = 0;
  for (std::int64_t pixel = threadIdx.x; pixel < g.n * g.oh * g.ow; pixel += kBlockThreads) {
    const std::int64_t iw = pixel % g.ow * g.stride_w - g.pad_w + kw * g.dilation_w;
    const std::int64_t h = pixel / g.ow % g.oh * g.stride_h - g.pad_h + kh * g.dilation_h;
    const std::int64_t n = pixel / (g.ow * g.oh);
    if (h < 0 || h >= g.h || iw < 0 || iw >= g.w) continue;
    sum += static_cast<Accumulation<T>>(x[((n * g.h + h) * g.w + iw) * g.c + channel]) *
           static_cast<Accumulation<T>>(dy[pixel * g.o + o]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) dw[index] = narrow<T>(sum);
}

// Packs do not cross rows: `packed` needs a whole number of them in `channels`.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    epilogue_kernel(Epilogue<T> e, T* y, std::int64_t count, std::int64_t channels, bool packed) {
  using A = Accumulation<T>;
  constexpr int kN = kPackOf<T>;
  const auto finish = [&e](T value, std::int64_t channel, T residual) {
    A sum = static_cast<A>(value);
    if (e.bias != nullptr) sum += e.bias[channel];
    if (e.residual != nullptr) sum += static_cast<A>(residual);
    return narrow<T>(activate(sum, e.act));
  };
  for_packs<kN>(
      count, packed,
      [&](std::int64_t i) {
        Pack<T, kN> pack = load_pack<kN>(y + i), residual{};
        if (e.residual != nullptr) residual = load_pack<kN>(e.residual + i);
        const std::int64_t channel = i % channels;
        for (int k = 0; k < kN; ++k) pack.v[k] = finish(pack.v[k], channel + k, residual.v[k]);
        store_pack<kN>(y + i, pack);
      },
      [&](std::int64_t i) { y[i] = finish(y[i], i % channels, e.residual != nullptr ? e.residual[i] : T{}); });
}

}  // namespace

void direct_conv2d(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y,
                   Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    launch(forward_kernel<T>, ceil_div(y.numel(), kBlockThreads), kBlockThreads, 0, stream, x.as<T>(), w.as<T>(),
           Epilogue<T>(epilogue), y.as<T>(), geometry(x.shape, w.shape, y.shape, params));
  });
}

void direct_conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx, Stream stream,
                                 bool accumulate) {
  for_floating(dy.dtype, [&]<typename T>() {
    launch(backward_data_kernel<T>, ceil_div(dx.numel(), kBlockThreads), kBlockThreads, 0, stream, dy.as<T>(),
           w.as<T>(), dx.as<T>(), accumulate, geometry(dx.shape, w.shape, dy.shape, params));
  });
}

void direct_conv2d_backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream) {
  for_floating(x.dtype, [&]<typename T>() {
    launch(backward_weights_kernel<T>, dw.numel(), kBlockThreads, 0, stream, x.as<T>(), dy.as<T>(), dw.as<T>(),
           geometry(x.shape, dw.shape, dy.shape, params));
  });
}

void bias_residual_activation(const ConvEpilogue& epilogue, View y, Stream stream) {
  for_floating(y.dtype, [&]<typename T>() {
    const bool packed = y.shape.last() % kPackOf<T> == 0 && aligned(y.as<T>(), epilogue.residual.as<T>());
    launch(epilogue_kernel<T>, grid_for(packed ? ceil_div(y.numel(), kPackOf<T>) : y.numel()), kBlockThreads, 0, stream,
           Epilogue<T>(epilogue), y.as<T>(), y.numel(), y.shape.last(), packed);
  });
}

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
