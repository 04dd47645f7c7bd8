// Augmentation: one block a sample. Flips and crops at the head of the list are followed backwards from each pixel of
// the result; if nothing else comes, that is all. Otherwise the image goes step by step through two buffers, which lie
// in shared memory where they fit (32 x 32 in f32 does) and in device memory where they do not.
#include "kernels/augment.h"
#include "kernels/augment_math.h"
#include "kernels/cuda/common.h"

namespace retort::kernels {
namespace {

constexpr std::size_t kMostShared = 40 * 1024;  // of 48 kB, the rest is for static arrays

// The weights of one output row or column of a resize: input pixel begin + t weighs
// scale * max(0, 1 - |t - middle| inverse_width).
template <typename Real>
struct AxisTaps {
  Real middle, inverse_width, scale;
  std::int32_t begin, count;

  __device__ Real weight(std::int32_t t) const {
    const Real w = Real(1) - std::fabs((static_cast<Real>(t) - middle) * inverse_width);
    return w > Real(0) ? w * scale : Real(0);
  }
};

template <typename Real>
__device__ inline AxisTaps<Real> axis_taps(std::int32_t in, std::int32_t out, std::int32_t i) {
  const ResizeTaps taps = resize_taps(in, out, i);
  double total = 0;
  for (std::int32_t j = taps.begin; j < taps.end; ++j) total += tap_weight(taps, j);
  return {static_cast<Real>(taps.centre - taps.begin - 0.5), static_cast<Real>(taps.inverse_width),
          static_cast<Real>(1 / total), taps.begin, taps.end - taps.begin};
}

// The offset, in pixels, of the input pixel that a result pixel shows after draws 0 .. count - 1, all pixel moves; -1
// for black.
__device__ inline std::int64_t moved_from(const StepDraw* draws, std::int32_t count, std::int32_t x, std::int32_t y,
                                          std::int32_t width) {
  for (std::int32_t s = count - 1; s >= 0; --s) {
    const StepDraw& draw = draws[s];
    x = draw.x0 + draw.sx * x;
    y = draw.y0 + draw.sy * y;
    if (x < 0 || x >= draw.in.width || y < 0 || y >= draw.in.height) return -1;
  }
  return static_cast<std::int64_t>(y) * width + x;
}

// A thread's pixels are threadIdx.x, threadIdx.x + kBlockThreads, ...
template <typename Visit>
__device__ inline void for_own_pixels(std::int32_t count, const Visit& visit) {
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < count; i += kBlockThreads) visit(i);
}

// In place; every thread changes its own pixels only. All threads of the block call it.
template <typename Real>
__device__ void jitter(const AugmentStep& step, const StepDraw& draw, Real* image, std::int32_t pixels) {
  Real* const r = image;
  Real* const g = image + pixels;
  Real* const b = image + 2 * pixels;
  const auto blend_all = [&](Real other, Real factor) {
    for_own_pixels(pixels, [&](std::int32_t i) {
      r[i] = blend(r[i], other, factor);
      g[i] = blend(g[i], other, factor);
      b[i] = blend(b[i], other, factor);
    });
  };
  RETORT_SHARED(Real, mean, 1);
  for (int k = 0; k < 4; ++k) {
    const int part = draw.order[k];
    if (jitter_part_is_idle(step, part)) continue;
    const auto factor = static_cast<Real>(draw.factor[part]);
    if (part == kBrightness) {
      blend_all(Real(0), factor);
    } else if (part == kContrast) {
      Real sum = 0;
      for_own_pixels(pixels, [&](std::int32_t i) { sum += grey_of(r[i], g[i], b[i]); });
      sum = block_sum(sum);
      if (threadIdx.x == 0) *mean = sum / static_cast<Real>(pixels);
      __syncthreads();
      blend_all(*mean, factor);
    } else if (part == kSaturation) {
      for_own_pixels(pixels, [&](std::int32_t i) {
        const Real grey = grey_of(r[i], g[i], b[i]);
        r[i] = blend(r[i], grey, factor);
        g[i] = blend(g[i], grey, factor);
        b[i] = blend(b[i], grey, factor);
      });
    } else {
      for_own_pixels(pixels, [&](std::int32_t i) { shift_hue(r[i], g[i], b[i], 6 * factor); });
    }
  }
}

template <typename Real>
__device__ void resize(const StepDraw& draw, const Real* from, AxisTaps<Real>* taps, Real* to) {
  const std::int32_t rows = draw.out.height, columns = draw.out.width;
  for_own_pixels(rows + columns, [&](std::int32_t i) {
    taps[i] = i < rows ? axis_taps<Real>(draw.box_h, rows, i) : axis_taps<Real>(draw.box_w, columns, i - rows);
  });
  __syncthreads();
  const std::int32_t in_pixels = draw.in.height * draw.in.width, out_pixels = rows * columns;
  for_own_pixels(out_pixels, [&](std::int32_t i) {
    const AxisTaps<Real> vertical = taps[i / columns], horizontal = taps[rows + i % columns];
    Real sum[3] = {0, 0, 0};
    for (std::int32_t v = 0; v < vertical.count; ++v) {
      const std::int32_t row = (draw.top + vertical.begin + v) * draw.in.width + draw.left + horizontal.begin;
      Real in_row[3] = {0, 0, 0};
      for (std::int32_t h = 0; h < horizontal.count; ++h) {
        const Real weight = horizontal.weight(h);
        for (int c = 0; c < 3; ++c) in_row[c] += weight * from[c * in_pixels + row + h];
      }
      const Real weight = vertical.weight(v);
      for (int c = 0; c < 3; ++c) sum[c] += weight * in_row[c];
    }
    for (int c = 0; c < 3; ++c) to[c * out_pixels + i] = sum[c];
  });
}

// What can be worked out before the launch.
template <typename Real>
struct Plan {
  std::int32_t moves;        // leading steps that only move pixels
  std::int32_t most_pixels;  // of any image on the way
  ImageSize size;            // of the input
  Real scale[3], shift[3];   // normalised = scale value + shift
};

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    augment_kernel(AugmentParams params, Plan<Accumulation<T>> plan, const std::uint8_t* images,
                   const std::int32_t* indices, const std::int32_t* epoch, Accumulation<T>* scratch,
                   std::int64_t scratch_pitch, T* out) {
  using Real = Accumulation<T>;
  RETORT_SHARED(StepDraw, draws, kMaxAugmentSteps);
  const std::int32_t sample = indices[blockIdx.x];
  ImageSize size = plan.size;
  for (std::int32_t s = 0; s < params.step_count; ++s) {
    if (static_cast<std::int32_t>(threadIdx.x) == s) {
      draws[s] = draw_step(params.steps[s], size, params.seed, static_cast<std::uint32_t>(*epoch),
                           static_cast<std::uint32_t>(sample));
    }
    size = step_size(params.steps[s], size);
  }
  __syncthreads();

  const std::uint8_t* image = images + static_cast<std::int64_t>(sample) * plan.size.height * plan.size.width * 3;
  const ImageSize moved = plan.moves > 0 ? draws[plan.moves - 1].out : plan.size;
  const std::int32_t out_values = 3 * size.height * size.width;
  out += static_cast<std::int64_t>(blockIdx.x) * out_values;

  if (plan.moves == params.step_count) {
    for_own_pixels(out_values, [&](std::int32_t i) {
      const std::int32_t c = i % 3, x = i / 3 % size.width, y = i / 3 / size.width;
      const std::int64_t from = moved_from(draws, plan.moves, x, y, plan.size.width);
      const Real value = from < 0 ? Real(0) : static_cast<Real>(image[3 * from + c]) * Real(1 / 255.0);
      out[i] = narrow<T>(value * plan.scale[c] + plan.shift[c]);
    });
    return;
  }

  // Planes of Real, and behind them the table of resize().
  Real* front =
      scratch != nullptr ? scratch + static_cast<std::int64_t>(blockIdx.x) * scratch_pitch : dynamic_shared<Real>();
  Real* back = front + 3 * plan.most_pixels;
  auto* const taps = reinterpret_cast<AxisTaps<Real>*>(back + 3 * plan.most_pixels);
  std::int32_t pixels = moved.height * moved.width;
  for_own_pixels(pixels, [&](std::int32_t i) {
    const std::int64_t from = moved_from(draws, plan.moves, i % moved.width, i / moved.width, plan.size.width);
    for (int c = 0; c < 3; ++c) {
      front[c * pixels + i] = from < 0 ? Real(0) : static_cast<Real>(image[3 * from + c]) * Real(1 / 255.0);
    }
  });

  for (std::int32_t s = plan.moves; s < params.step_count; ++s) {
    const StepDraw& draw = draws[s];
    if (draw.kind == AugmentKind::color_jitter) {  // its pixels are this thread's own since the last barrier or load
      jitter(params.steps[s], draw, front, pixels);
      continue;
    }
    __syncthreads();
    const std::int32_t out_pixels = draw.out.height * draw.out.width;
    if (draw.kind == AugmentKind::resized_crop) {
      resize(draw, front, taps, back);
    } else {
      for_own_pixels(out_pixels, [&](std::int32_t i) {
        const std::int32_t x = i % draw.out.width, y = i / draw.out.width;
        const std::int64_t from =
            draw.kind == AugmentKind::rotation ? rotated_from(draw, x, y) : moved_from(&draw, 1, x, y, draw.in.width);
        for (int c = 0; c < 3; ++c) back[c * out_pixels + i] = from < 0 ? Real(0) : front[c * pixels + from];
      });
    }
    pixels = out_pixels;
    Real* const swapped = front;
    front = back;
    back = swapped;
  }
  __syncthreads();
  for_own_pixels(out_values, [&](std::int32_t i) {
    const std::int32_t c = i % 3;
    out[i] = narrow<T>(front[c * pixels + i / 3] * plan.scale[c] + plan.shift[c]);
  });
}

template <typename T>
void augment_as(Backend& backend, const AugmentParams& params, ConstView images, ConstView indices, ConstView epoch,
                View out, Stream stream) {
  using Real = Accumulation<T>;
  Plan<Real> plan{0, 0, {static_cast<int>(images.shape[1]), static_cast<int>(images.shape[2])}, {}, {}};
  for (int c = 0; c < 3; ++c) {
    plan.scale[c] = static_cast<Real>(1 / params.std[c]);
    plan.shift[c] = static_cast<Real>(-params.mean[c] / params.std[c]);
  }
  while (plan.moves < params.step_count && is_pixel_move(params.steps[plan.moves].kind)) ++plan.moves;
  ImageSize size = plan.size;
  std::int32_t longest_table = 0;
  plan.most_pixels = size.height * size.width;
  for (int s = 0; s < params.step_count; ++s) {
    size = step_size(params.steps[s], size);
    plan.most_pixels = std::max(plan.most_pixels, size.height * size.width);
    if (params.steps[s].kind == AugmentKind::resized_crop)
      longest_table = std::max(longest_table, size.height + size.width);
  }
  const bool staged = plan.moves < params.step_count;
  const std::int64_t pitch =
      staged ? 6 * std::int64_t{plan.most_pixels} +
                   ceil_div(longest_table * static_cast<std::int64_t>(sizeof(AxisTaps<Real>)), sizeof(Real))
             : 0;
  const std::size_t bytes = static_cast<std::size_t>(pitch) * sizeof(Real);
  const std::int64_t batch = indices.numel();
  const auto start = [&](Real* scratch, std::size_t shared) {
    launch(augment_kernel<T>, batch, kBlockThreads, shared, stream, params, plan, images.as<std::uint8_t>(),
           indices.as<std::int32_t>(), epoch.as<std::int32_t>(), scratch, pitch, out.as<T>());
  };
  if (bytes <= kMostShared) {
    start(nullptr, bytes);
  } else {
    const Workspace<Real> scratch(backend, batch * pitch, stream);
    start(scratch.get(), 0);
  }
}

}  // namespace

void CudaKernels::augment(const AugmentParams& params, ConstView images, ConstView indices, ConstView epoch, View out,
                          Stream stream) {
  for_floating(out.dtype, [&]<typename T>() { augment_as<T>(*this, params, images, indices, epoch, out, stream); });
}

}  // namespace retort::kernels
