// Pooling over NHWC. The backward passes gather: every input pixel adds up the windows that cover it, in a fixed order,
// so no two threads write the same place. The inner loop runs over the channels.
#include <cassert>
#include <limits>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/parallel.h"

namespace retort::kernels {
namespace cpu {
namespace {

// The cells begin, begin + step, ... below end along one axis.
struct Range {
  std::int64_t begin, end, step = 1;
};

// One axis of a pooling window that slides.
struct Window {
  std::int64_t kernel, stride, pad, pad_end, dilation, in, out;
  bool count_padding;
  std::int64_t reach() const { return dilation * (kernel - 1) + 1; }
  // Input cells that output cell o looks at.
  Range inputs(std::int64_t o) const {
    const std::int64_t start = o * stride - pad;
    return {start < 0 ? start + (dilation - 1 - start) / dilation * dilation : start, std::min(start + reach(), in),
            dilation};
  }
  // Output cells that look at input cell i; with dilation, those too that look past it.
  Range outputs(std::int64_t i) const {
    const std::int64_t first = i + pad - reach();  // cells that start at or before this one end before i
    return {first < 0 ? 0 : first / stride + 1, std::min((i + pad) / stride + 1, out)};
  }
  // How many cells the average of output cell o is over (no dilation).
  std::int64_t counted(std::int64_t o) const {
    const Range real = inputs(o);
    if (!count_padding) return real.end - real.begin;
    const std::int64_t start = o * stride - pad;
    return std::min(start + kernel, in + pad_end) - start;
  }
};

// One axis of adaptive pooling.
struct Adaptive {
  std::int64_t in, out;
  Range inputs(std::int64_t o) const { return {o * in / out, ((o + 1) * in + out - 1) / out}; }
  Range outputs(std::int64_t i) const { return {i * out / in, ((i + 1) * out + in - 1) / in}; }
  std::int64_t counted(std::int64_t o) const { return inputs(o).end - inputs(o).begin; }
};

Window window_h(const PoolParams& p, const Shape& in, const Shape& out) {
  return {p.kernel_h, p.stride_h, p.pad_h, p.end_h(), p.dilation_h, in[1], out[1], p.count_padding};
}
Window window_w(const PoolParams& p, const Shape& in, const Shape& out) {
  return {p.kernel_w, p.stride_w, p.pad_w, p.end_w(), p.dilation_w, in[2], out[2], p.count_padding};
}

// f(n, h, w) for every pixel of an [N, H, W, C] tensor, rows of pixels spread over the threads.
template <typename F>
void for_each_pixel(const Shape& shape, std::int64_t work_per_pixel, const F& f) {
  const std::int64_t height = shape[1], width = shape[2];
  parallel_for(shape[0] * height, width * work_per_pixel, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t w = 0; w < width; ++w) f(row / height, row % height, w);
    }
  });
}

// Channels are taken in blocks whose sums fit the L1 cache.
constexpr std::int64_t kBlock = 512;

// Averages x over inputs(o) on both axes.
template <typename T, typename Axis>
void average(ConstView x, View y, const Axis& axis_h, const Axis& axis_w) {
  using A = Accumulator<T>;
  const std::int64_t channels = x.shape[3], height = x.shape[1], width = x.shape[2];
  const std::int64_t window = axis_h.counted(0) * axis_w.counted(0);
  const T* const in = x.as<T>();
  T* const out = y.as<T>();
  for_each_pixel(y.shape, (window + 1) * channels, [&](std::int64_t n, std::int64_t oh, std::int64_t ow) {
    const Range rows = axis_h.inputs(oh), columns = axis_w.inputs(ow);
    const A factor = A(1) / static_cast<A>(axis_h.counted(oh) * axis_w.counted(ow));
    T* const to = out + ((n * y.shape[1] + oh) * y.shape[2] + ow) * channels;
    for (std::int64_t c0 = 0; c0 < channels; c0 += kBlock) {
      const std::int64_t here = std::min(kBlock, channels - c0);
      A sums[kBlock];
      std::fill(sums, sums + here, A(0));
      for (std::int64_t h = rows.begin; h < rows.end; ++h) {
        for (std::int64_t w = columns.begin; w < columns.end; ++w) {
          const T* const from = in + ((n * height + h) * width + w) * channels + c0;
#pragma omp simd
          for (std::int64_t c = 0; c < here; ++c) sums[c] += load(from[c]);
        }
      }
#pragma omp simd
      for (std::int64_t c = 0; c < here; ++c) to[c0 + c] = static_cast<T>(sums[c] * factor);
    }
  });
}

template <typename T, typename Axis>
void average_backward(ConstView dy, View dx, const Axis& axis_h, const Axis& axis_w) {
  using A = Accumulator<T>;
  const std::int64_t channels = dx.shape[3], out_height = dy.shape[1], out_width = dy.shape[2];
  const T* const in = dy.as<T>();
  T* const out = dx.as<T>();
  for_each_pixel(dx.shape, 2 * channels, [&](std::int64_t n, std::int64_t h, std::int64_t w) {
    const Range rows = axis_h.outputs(h), columns = axis_w.outputs(w);
    T* const to = out + ((n * dx.shape[1] + h) * dx.shape[2] + w) * channels;
    for (std::int64_t c0 = 0; c0 < channels; c0 += kBlock) {
      const std::int64_t here = std::min(kBlock, channels - c0);
      A sums[kBlock];
      std::fill(sums, sums + here, A(0));
      for (std::int64_t oh = rows.begin; oh < rows.end; ++oh) {
        for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
          const T* const from = in + ((n * out_height + oh) * out_width + ow) * channels + c0;
          const A factor = A(1) / static_cast<A>(axis_h.counted(oh) * axis_w.counted(ow));
#pragma omp simd
          for (std::int64_t c = 0; c < here; ++c) sums[c] += load(from[c]) * factor;
        }
      }
#pragma omp simd
      for (std::int64_t c = 0; c < here; ++c) to[c0 + c] = static_cast<T>(sums[c]);
    }
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::max_pool(ConstView x, const PoolParams& params, View y, View argmax, Stream) {
  assert(x.dtype == y.dtype && argmax.dtype == DType::i32 && argmax.numel() == y.numel());
  const Window axis_h = window_h(params, x.shape, y.shape), axis_w = window_w(params, x.shape, y.shape);
  const std::int64_t channels = x.shape[3], height = x.shape[1], width = x.shape[2];
  dispatch_floating("max_pool", x.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    const T* const in = x.as<T>();
    const std::int64_t work = static_cast<std::int64_t>(params.kernel_h) * params.kernel_w * channels;
    for_each_pixel(y.shape, work, [&](std::int64_t n, std::int64_t oh, std::int64_t ow) {
      const Range rows = axis_h.inputs(oh), columns = axis_w.inputs(ow);
      const std::int64_t at = ((n * y.shape[1] + oh) * y.shape[2] + ow) * channels;
      T* const best = y.as<T>() + at;
      std::int32_t* const chosen = argmax.as<std::int32_t>() + at;
      const auto first = static_cast<std::int32_t>(rows.begin * width + columns.begin);
      std::copy_n(in + (n * height * width + first) * channels, channels, best);
      std::fill_n(chosen, channels, first);
      for (std::int64_t h = rows.begin; h < rows.end; h += rows.step) {
        for (std::int64_t w = columns.begin; w < columns.end; w += columns.step) {
          const auto here = static_cast<std::int32_t>(h * width + w);
          const T* const from = in + (n * height * width + here) * channels;
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) {
            const A v = load(from[c]);
            const bool better = v > load(best[c]) || v != v;  // NaN wins, as in PyTorch: it must stay visible
            best[c] = better ? from[c] : best[c];
            chosen[c] = better ? here : chosen[c];
          }
        }
      }
    });
  });
}

void CpuBackend::max_pool_backward(ConstView dy, ConstView argmax, const PoolParams& params, View dx, Stream) {
  assert(dy.dtype == dx.dtype && argmax.numel() == dy.numel());
  const Window axis_h = window_h(params, dx.shape, dy.shape), axis_w = window_w(params, dx.shape, dy.shape);
  const std::int64_t channels = dx.shape[3], out_height = dy.shape[1], out_width = dy.shape[2];
  dispatch_floating("max_pool_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    for_each_pixel(dx.shape, 4 * channels, [&](std::int64_t n, std::int64_t h, std::int64_t w) {
      const Range rows = axis_h.outputs(h), columns = axis_w.outputs(w);
      const auto here = static_cast<std::int32_t>(h * dx.shape[2] + w);
      T* const to = dx.as<T>() + ((n * dx.shape[1] + h) * dx.shape[2] + w) * channels;
      for (std::int64_t c0 = 0; c0 < channels; c0 += kBlock) {
        const std::int64_t block = std::min(kBlock, channels - c0);
        A sums[kBlock];
        std::fill(sums, sums + block, A(0));
        for (std::int64_t oh = rows.begin; oh < rows.end; ++oh) {
          for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
            const std::int64_t at = ((n * out_height + oh) * out_width + ow) * channels + c0;
            const T* const from = dy.as<T>() + at;
            const std::int32_t* const chosen = argmax.as<std::int32_t>() + at;
#pragma omp simd
            for (std::int64_t c = 0; c < block; ++c) sums[c] += chosen[c] == here ? load(from[c]) : A(0);
          }
        }
#pragma omp simd
        for (std::int64_t c = 0; c < block; ++c) to[c0 + c] = static_cast<T>(sums[c]);
      }
    });
  });
}

void CpuBackend::average_pool(ConstView x, const PoolParams& params, View y, Stream) {
  dispatch_floating("average_pool", x.dtype, [&]<typename T>(std::type_identity<T>) {
    average<T>(x, y, window_h(params, x.shape, y.shape), window_w(params, x.shape, y.shape));
  });
}

void CpuBackend::average_pool_backward(ConstView dy, const PoolParams& params, View dx, Stream) {
  dispatch_floating("average_pool_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    average_backward<T>(dy, dx, window_h(params, dx.shape, dy.shape), window_w(params, dx.shape, dy.shape));
  });
}

void CpuBackend::adaptive_average_pool(ConstView x, View y, Stream) {
  dispatch_floating("adaptive_average_pool", x.dtype, [&]<typename T>(std::type_identity<T>) {
    average<T>(x, y, Adaptive{x.shape[1], y.shape[1]}, Adaptive{x.shape[2], y.shape[2]});
  });
}

void CpuBackend::adaptive_average_pool_backward(ConstView dy, View dx, Stream) {
  dispatch_floating("adaptive_average_pool_backward", dx.dtype, [&]<typename T>(std::type_identity<T>) {
    average_backward<T>(dy, dx, Adaptive{dx.shape[1], dy.shape[1]}, Adaptive{dx.shape[2], dy.shape[2]});
  });
}

}  // namespace retort::kernels
