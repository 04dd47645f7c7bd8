// Pooling over NHWC: one thread a pack of channels of one pixel. Backward gathers instead of scattering: every input
// pixel adds up the windows that cover it in a fixed order, without atomics.
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

struct Range {
  std::int32_t first, last, step;  // first, first + step, ... below last
};

// One axis of a pooling: which input cells belong to an output cell, and the other way round.
struct Axis {
  std::int32_t in, out;
  std::int32_t kernel, stride, pad, pad_end, dilation;  // kernel 0: adaptive
  bool count_padding;

  __device__ std::int32_t reach() const { return dilation * (kernel - 1) + 1; }

  __device__ Range inputs(std::int32_t o) const {
    if (kernel == 0) {
      const std::int64_t length = in;
      return {static_cast<std::int32_t>(o * length / out),
              static_cast<std::int32_t>(((o + 1) * length + out - 1) / out), 1};
    }
    const std::int32_t first = o * stride - pad, last = first + reach();
    return {first < 0 ? first + (dilation - 1 - first) / dilation * dilation : first, last < in ? last : in, dilation};
  }
  // With dilation, outputs that look past i are among them.
  __device__ Range outputs(std::int32_t i) const {
    if (kernel == 0) {
      const std::int64_t cells = out;
      return {static_cast<std::int32_t>(i * cells / in), static_cast<std::int32_t>(((i + 1) * cells + in - 1) / in), 1};
    }
    const std::int32_t behind = i + pad - reach() + 1, last = (i + pad) / stride + 1;
    return {behind <= 0 ? 0 : (behind + stride - 1) / stride, last < out ? last : out, 1};
  }
  // How many cells the average of output o is over (no dilation).
  __device__ std::int32_t counted(std::int32_t o) const {
    if (kernel != 0 && count_padding) {
      const std::int32_t first = o * stride - pad, last = first + kernel;
      return (last < in + pad_end ? last : in + pad_end) - first;
    }
    const Range r = inputs(o);
    return r.last - r.first;
  }
};

struct Geometry {
  Axis h, w;
  std::int64_t images, channels;
  std::int64_t input_pixels() const { return images * h.in * w.in; }
  std::int64_t output_pixels() const { return images * h.out * w.out; }
};

Geometry geometry(const Shape& in, const Shape& out, const PoolParams* p) {
  const auto n = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  Axis h{n(in[1]), n(out[1]), 0, 1, 0, 0, 1, false}, w{n(in[2]), n(out[2]), 0, 1, 0, 0, 1, false};
  if (p != nullptr) {
    h = {h.in, h.out, p->kernel_h, p->stride_h, p->pad_h, p->end_h(), p->dilation_h, p->count_padding};
    w = {w.in, w.out, p->kernel_w, p->stride_w, p->pad_w, p->end_w(), p->dilation_w, p->count_padding};
  }
  return {h, w, in[0], in[3]};
}

// The i-th channel pack of a map of height x width pixels.
struct Place {
  std::int64_t image, channel;
  std::int32_t h, w;
  __device__ Place(std::int64_t i, std::int64_t packs, int width_of_pack, std::int32_t height, std::int32_t width) {
    channel = i % packs * width_of_pack;
    i /= packs;
    w = static_cast<std::int32_t>(i % width);
    i /= width;
    h = static_cast<std::int32_t>(i % height);
    image = i / height;
  }
};

// Calls body(i) for all i below count, dealt to the threads of the grid.
template <typename F>
__device__ inline void for_each(std::int64_t count, const F& body) {
  for_packs<1>(
      count, false, [](std::int64_t) {}, body);
}

template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads) max_pool_kernel(const T* x, Geometry g, T* y, std::int32_t* argmax) {
  using A = Accumulation<T>;
  const std::int64_t packs = g.channels / N;
  for_each(g.images * g.h.out * g.w.out * packs, [&](std::int64_t i) {
    const Place at(i, packs, N, g.h.out, g.w.out);
    const Range rows = g.h.inputs(at.h), columns = g.w.inputs(at.w);
    const T* const image = x + at.image * g.h.in * g.w.in * g.channels + at.channel;
    const std::int32_t first = rows.first * g.w.in + columns.first;
    Pack<T, N> best = load_pack<N>(image + first * g.channels);
    Pack<std::int32_t, N> where;
    for (int k = 0; k < N; ++k) where.v[k] = first;
    for (std::int32_t h = rows.first; h < rows.last; h += rows.step) {
      for (std::int32_t w = columns.first; w < columns.last; w += columns.step) {
        const std::int32_t pixel = h * g.w.in + w;
        const Pack<T, N> px = load_pack<N>(image + pixel * g.channels);
        for (int k = 0; k < N; ++k) {
          const A value = static_cast<A>(px.v[k]);
          if (!(value > static_cast<A>(best.v[k])) && value == value) continue;  // NaN wins, so that it is not lost
          best.v[k] = px.v[k];
          where.v[k] = pixel;
        }
      }
    }
    store_pack<N>(y + i * N, best);
    store_pack<N>(argmax + i * N, where);
  });
}

template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads)
    max_pool_backward_kernel(const T* dy, const std::int32_t* argmax, Geometry g, T* dx) {
  using A = Accumulation<T>;
  const std::int64_t packs = g.channels / N;
  for_each(g.images * g.h.in * g.w.in * packs, [&](std::int64_t i) {
    const Place at(i, packs, N, g.h.in, g.w.in);
    const Range rows = g.h.outputs(at.h), columns = g.w.outputs(at.w);
    const std::int32_t pixel = at.h * g.w.in + at.w;
    A sum[N] = {};
    for (std::int32_t h = rows.first; h < rows.last; ++h) {
      for (std::int32_t w = columns.first; w < columns.last; ++w) {
        const std::int64_t from = ((at.image * g.h.out + h) * g.w.out + w) * g.channels + at.channel;
        const Pack<T, N> pg = load_pack<N>(dy + from);
        const Pack<std::int32_t, N> where = load_pack<N>(argmax + from);
        for (int k = 0; k < N; ++k) {
          if (where.v[k] == pixel) sum[k] += static_cast<A>(pg.v[k]);
        }
      }
    }
    Pack<T, N> out;
    for (int k = 0; k < N; ++k) out.v[k] = narrow<T>(sum[k]);
    store_pack<N>(dx + i * N, out);
  });
}

// Average and adaptive average pooling.
template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads) average_pool_kernel(const T* x, Geometry g, T* y) {
  using A = Accumulation<T>;
  const std::int64_t packs = g.channels / N;
  for_each(g.images * g.h.out * g.w.out * packs, [&](std::int64_t i) {
    const Place at(i, packs, N, g.h.out, g.w.out);
    const Range rows = g.h.inputs(at.h), columns = g.w.inputs(at.w);
    A sum[N] = {};
    for (std::int32_t h = rows.first; h < rows.last; ++h) {
      const T* const line = x + (at.image * g.h.in + h) * g.w.in * g.channels + at.channel;
      RETORT_UNROLL(4)
      for (std::int32_t w = columns.first; w < columns.last; ++w) {
        const Pack<T, N> px = load_pack<N>(line + w * g.channels);
        for (int k = 0; k < N; ++k) sum[k] += static_cast<A>(px.v[k]);
      }
    }
    const A factor = A(1) / static_cast<A>(g.h.counted(at.h) * g.w.counted(at.w));
    Pack<T, N> out;
    for (int k = 0; k < N; ++k) out.v[k] = narrow<T>(sum[k] * factor);
    store_pack<N>(y + i * N, out);
  });
}

template <typename T, int N>
__global__ void __launch_bounds__(kBlockThreads) average_pool_backward_kernel(const T* dy, Geometry g, T* dx) {
  using A = Accumulation<T>;
  const std::int64_t packs = g.channels / N;
  for_each(g.images * g.h.in * g.w.in * packs, [&](std::int64_t i) {
    const Place at(i, packs, N, g.h.in, g.w.in);
    const Range rows = g.h.outputs(at.h), columns = g.w.outputs(at.w);
    A sum[N] = {};
    for (std::int32_t h = rows.first; h < rows.last; ++h) {
      for (std::int32_t w = columns.first; w < columns.last; ++w) {
        const A factor = A(1) / static_cast<A>(g.h.counted(h) * g.w.counted(w));
        const Pack<T, N> pg = load_pack<N>(dy + ((at.image * g.h.out + h) * g.w.out + w) * g.channels + at.channel);
        for (int k = 0; k < N; ++k) sum[k] += static_cast<A>(pg.v[k]) * factor;
      }
    }
    Pack<T, N> out;
    for (int k = 0; k < N; ++k) out.v[k] = narrow<T>(sum[k]);
    store_pack<N>(dx + i * N, out);
  });
}

// Launches the one of two kernels that fits: a pack of channels a thread, or a single channel.
template <typename T, typename Kernel, typename... Args>
void run(Kernel wide, Kernel single, bool is_aligned, std::int64_t pixels, const Geometry& g, Stream stream,
         Args... args) {
  constexpr int kN = kPackOf<T>;
  const bool packed = is_aligned && g.channels % kN == 0;
  const std::int64_t threads = pixels * (packed ? g.channels / kN : g.channels);
  launch(packed ? wide : single, grid_for(threads), kBlockThreads, 0, stream, args...);
}

void average(ConstView x, const PoolParams* params, View y, Stream stream) {
  const Geometry g = geometry(x.shape, y.shape, params);
  for_floating(x.dtype, [&]<typename T>() {
    run<T>(average_pool_kernel<T, kPackOf<T>>, average_pool_kernel<T, 1>, aligned(x.as<T>(), y.as<T>()),
           g.output_pixels(), g, stream, x.as<T>(), g, y.as<T>());
  });
}

void average_backward(ConstView dy, const PoolParams* params, View dx, Stream stream) {
  const Geometry g = geometry(dx.shape, dy.shape, params);
  for_floating(dx.dtype, [&]<typename T>() {
    run<T>(average_pool_backward_kernel<T, kPackOf<T>>, average_pool_backward_kernel<T, 1>,
           aligned(dy.as<T>(), dx.as<T>()), g.input_pixels(), g, stream, dy.as<T>(), g, dx.as<T>());
  });
}

}  // namespace

void CudaKernels::max_pool(ConstView x, const PoolParams& params, View y, View argmax, Stream stream) {
  const Geometry g = geometry(x.shape, y.shape, &params);
  for_floating(x.dtype, [&]<typename T>() {
    run<T>(max_pool_kernel<T, kPackOf<T>>, max_pool_kernel<T, 1>,
           aligned(x.as<T>(), y.as<T>(), argmax.as<std::int32_t>()), g.output_pixels(), g, stream, x.as<T>(), g,
           y.as<T>(), argmax.as<std::int32_t>());
  });
}

void CudaKernels::max_pool_backward(ConstView dy, ConstView argmax, const PoolParams& params, View dx, Stream stream) {
  const Geometry g = geometry(dx.shape, dy.shape, &params);
  for_floating(dx.dtype, [&]<typename T>() {
    run<T>(max_pool_backward_kernel<T, kPackOf<T>>, max_pool_backward_kernel<T, 1>,
           aligned(dy.as<T>(), dx.as<T>(), argmax.as<std::int32_t>()), g.input_pixels(), g, stream, dy.as<T>(),
           argmax.as<std::int32_t>(), g, dx.as<T>());
  });
}

void CudaKernels::average_pool(ConstView x, const PoolParams& params, View y, Stream stream) {
  average(x, &params, y, stream);
}
void CudaKernels::average_pool_backward(ConstView dy, const PoolParams& params, View dx, Stream stream) {
  average_backward(dy, &params, dx, stream);
}
void CudaKernels::adaptive_average_pool(ConstView x, View y, Stream stream) {
  average(x, nullptr, y, stream);
}
void CudaKernels::adaptive_average_pool_backward(ConstView dy, View dx, Stream stream) {
  average_backward(dy, nullptr, dx, stream);
}

}  // namespace retort::kernels
