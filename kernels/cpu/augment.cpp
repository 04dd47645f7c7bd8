// Augmentation: each thread takes whole samples. Flips and crops at the head of the list are done on the bytes; what
// follows runs step by step over three planes of Real that stay in the first-level cache for small images, in loops
// that the compiler vectorises.
#include "kernels/augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/augment_math.h"
#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

// Three planes of an image; behind each lies one zero, which stands for all pixels outside the image.
template <typename Real>
class Planes {
 public:
  explicit Planes(std::int64_t pixels) : pitch_((pixels + 16) / 16 * 16), data_(static_cast<std::size_t>(3 * pitch_)) {}
  Real* plane(int channel) { return data_.data() + channel * pitch_; }
  const Real* plane(int channel) const { return data_.data() + channel * pitch_; }

 private:
  std::int64_t pitch_;
  std::vector<Real> data_;
};

// Copies `out` pixels of `n` interleaved elements from row `from` of `in` pixels: pixel x is from[x0 + sx x], or zero.
template <int n, typename T>
void move_row(const T* from, int in, int x0, int sx, T* to, int out) {
  // The result's pixels first .. last - 1 lie inside the input.
  int first = sx > 0 ? -x0 : x0 - (in - 1);
  int last = sx > 0 ? in - x0 : x0 + 1;
  first = first < 0 ? 0 : (first > out ? out : first);
  last = last < first ? first : (last > out ? out : last);
  std::memset(static_cast<void*>(to), 0, sizeof(T) * static_cast<std::size_t>(n * first));
  if (sx > 0) {
    std::memcpy(static_cast<void*>(to + n * first), from + n * (x0 + first),
                sizeof(T) * static_cast<std::size_t>(n * (last - first)));
  } else {
    const T* source = from + n * (x0 - first);
    for (int x = first; x < last; ++x, source -= n) {
      for (int c = 0; c < n; ++c) to[n * x + c] = source[c];
    }
  }
  std::memset(static_cast<void*>(to + n * last), 0, sizeof(T) * static_cast<std::size_t>(n * (out - last)));
}

template <int n, typename T>
void move_pixels(const StepDraw& draw, const T* from, T* to) {
  const auto in_row = static_cast<std::int64_t>(n) * draw.in.width,
             out_row = static_cast<std::int64_t>(n) * draw.out.width;
  for (int y = 0; y < draw.out.height; ++y, to += out_row) {
    const int source = draw.y0 + draw.sy * y;
    if (source < 0 || source >= draw.in.height) {
      std::memset(static_cast<void*>(to), 0, sizeof(T) * static_cast<std::size_t>(out_row));
    } else {
      move_row<n>(from + source * in_row, draw.in.width, draw.x0, draw.sx, to, draw.out.width);
    }
  }
}

template <typename Real>
void blend_with(Real* __restrict x, std::int64_t n, Real constant, Real factor) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] = blend(x[i], constant, factor);
}

template <typename Real>
void jitter(const AugmentStep& step, const StepDraw& draw, Planes<Real>& image) {
  Real* __restrict r = image.plane(0);
  Real* __restrict g = image.plane(1);
  Real* __restrict b = image.plane(2);
  const std::int64_t n = std::int64_t{draw.in.height} * draw.in.width;
  for (const std::uint8_t part : draw.order) {
    if (jitter_part_is_idle(step, part)) continue;
    const Real factor = static_cast<Real>(draw.factor[part]);
    switch (part) {
      case kBrightness:
        for (Real* plane : {r, g, b}) blend_with(plane, n, Real(0), factor);
        break;
      case kContrast: {
        Real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < n; ++i) sum += grey_of(r[i], g[i], b[i]);
        const Real mean = sum / static_cast<Real>(n);
        for (Real* plane : {r, g, b}) blend_with(plane, n, mean, factor);
        break;
      }
      case kSaturation:
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) {
          const Real grey = grey_of(r[i], g[i], b[i]);
          r[i] = blend(r[i], grey, factor);
          g[i] = blend(g[i], grey, factor);
          b[i] = blend(b[i], grey, factor);
        }
        break;
      default: {
        const Real shift = 6 * factor;
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) {
          Real red = r[i], green = g[i], blue = b[i];
          shift_hue(red, green, blue, shift);
          r[i] = red;
          g[i] = green;
          b[i] = blue;
        }
      }
    }
  }
}

// One axis of a resize: for each output pixel `taps` input pixels and weights, stored tap by tap.
template <typename Real>
class ResizeTable {
 public:
  void build(int in, int out, int origin) {
    const double scale = static_cast<double>(in) / out;
    taps = scale > 1 ? 2 * static_cast<int>(std::ceil(scale)) + 1 : 2;
    out_ = out;
    source_.resize(static_cast<std::size_t>(taps * out));
    weight_.resize(source_.size());
    for (int i = 0; i < out; ++i) {
      const ResizeTaps range = resize_taps(in, out, i);
      double total = 0;
      for (int j = range.begin; j < range.end; ++j) total += tap_weight(range, j);
      for (int t = 0; t < taps; ++t) {
        const int j = range.begin + t;
        const bool used = j < range.end;
        source_[static_cast<std::size_t>(t * out + i)] = origin + (used ? j : range.begin);
        weight_[static_cast<std::size_t>(t * out + i)] =
            used ? static_cast<Real>(tap_weight(range, j) / total) : Real(0);
      }
    }
  }
  const std::int32_t* source(int tap) const { return source_.data() + tap * out_; }
  const Real* weight(int tap) const { return weight_.data() + tap * out_; }
  int taps = 0;

 private:
  int out_ = 0;
  std::vector<std::int32_t> source_;
  std::vector<Real> weight_;
};

// A thread's memory, and one sample's way through it.
template <typename Real, typename Out>
class SampleAugmenter {
 public:
  SampleAugmenter(const AugmentParams& params, ImageSize size)
      : params_(params), size_(size), front_(largest(params, size)), back_(largest(params, size)) {
    bytes_[0].resize(static_cast<std::size_t>(3 * largest(params, size)));
    bytes_[1].resize(bytes_[0].size());
    const ImageSize out = augmented_size(params, size);
    scale_row_.resize(static_cast<std::size_t>(3 * out.width));
    shift_row_.resize(scale_row_.size());
    for (std::size_t i = 0; i < scale_row_.size(); ++i) {
      scale_row_[i] = static_cast<Real>(1 / (255.0 * params.std[i % 3]));
      shift_row_[i] = static_cast<Real>(-params.mean[i % 3] / params.std[i % 3]);
    }
  }

  void run(const std::uint8_t* image, std::uint32_t epoch, std::uint32_t sample, Out* out) {
    ImageSize size = size_;
    int i = 0;
    for (; i < params_.step_count && is_pixel_move(params_.steps[i].kind); ++i) {
      const StepDraw draw = draw_step(params_.steps[i], size, params_.seed, epoch, sample);
      std::uint8_t* to = bytes_[i % 2].data();
      move_pixels<3>(draw, image, to);
      image = to;
      size = draw.out;
    }
    if (i == params_.step_count) {
      store_bytes(image, size, out);
      return;
    }
    load(image, size);
    for (; i < params_.step_count; ++i) {
      const AugmentStep& step = params_.steps[i];
      const StepDraw draw = draw_step(step, size, params_.seed, epoch, sample);
      switch (step.kind) {
        case AugmentKind::flip:
        case AugmentKind::vertical_flip:
        case AugmentKind::crop:
          for (int c = 0; c < 3; ++c) move_pixels<1>(draw, front_.plane(c), back_.plane(c));
          std::swap(front_, back_);
          break;
        case AugmentKind::color_jitter:
          jitter(step, draw, front_);
          break;
        case AugmentKind::rotation:
          rotate(draw);
          break;
        case AugmentKind::resized_crop:
          resize(draw);
          break;
      }
      size = draw.out;
    }
    store(size, out);
  }

 private:
  static std::int64_t largest(const AugmentParams& params, ImageSize size) {
    std::int64_t pixels = std::int64_t{size.height} * size.width;
    for (int i = 0; i < params.step_count; ++i) {
      size = step_size(params.steps[i], size);
      pixels = std::max(pixels, std::int64_t{size.height} * size.width);
    }
    return pixels;
  }

  void load(const std::uint8_t* __restrict image, ImageSize size) {
    Real* __restrict r = front_.plane(0);
    Real* __restrict g = front_.plane(1);
    Real* __restrict b = front_.plane(2);
    const std::int64_t n = std::int64_t{size.height} * size.width;
    for (std::int64_t i = 0; i < n; ++i) {
      r[i] = static_cast<Real>(image[3 * i]) * Real(1 / 255.0);
      g[i] = static_cast<Real>(image[3 * i + 1]) * Real(1 / 255.0);
      b[i] = static_cast<Real>(image[3 * i + 2]) * Real(1 / 255.0);
    }
  }

  void store_bytes(const std::uint8_t* __restrict image, ImageSize size, Out* __restrict out) const {
    const int row = 3 * size.width;
    const Real* __restrict scale = scale_row_.data();
    const Real* __restrict shift = shift_row_.data();
    for (int y = 0; y < size.height; ++y, image += row, out += row) {
      for (int i = 0; i < row; ++i) out[i] = static_cast<Out>(static_cast<Real>(image[i]) * scale[i] + shift[i]);
    }
  }

  void store(ImageSize size, Out* __restrict out) const {
    Real scale[3], shift[3];
    for (int c = 0; c < 3; ++c) {
      scale[c] = static_cast<Real>(1 / params_.std[c]);
      shift[c] = static_cast<Real>(-params_.mean[c] / params_.std[c]);
    }
    const Real* __restrict r = front_.plane(0);
    const Real* __restrict g = front_.plane(1);
    const Real* __restrict b = front_.plane(2);
    const std::int64_t n = std::int64_t{size.height} * size.width;
    for (std::int64_t i = 0; i < n; ++i) {
      out[3 * i] = static_cast<Out>(r[i] * scale[0] + shift[0]);
      out[3 * i + 1] = static_cast<Out>(g[i] * scale[1] + shift[1]);
      out[3 * i + 2] = static_cast<Out>(b[i] * scale[2] + shift[2]);
    }
  }

  void rotate(const StepDraw& draw) {
    const int width = draw.in.width;
    const std::int32_t outside = draw.in.height * width;  // where each plane holds a zero
    source_.resize(static_cast<std::size_t>(width));
    std::int32_t* __restrict source = source_.data();
    for (int c = 0; c < 3; ++c) front_.plane(c)[outside] = 0;
    for (int y = 0; y < draw.in.height; ++y) {
#pragma omp simd
      for (int x = 0; x < width; ++x) {
        const std::int32_t from = rotated_from(draw, x, y);
        source[x] = from < 0 ? outside : from;
      }
      for (int c = 0; c < 3; ++c) {
        const Real* __restrict from = front_.plane(c);
        Real* __restrict to = back_.plane(c) + std::int64_t{y} * width;
#pragma omp simd
        for (int x = 0; x < width; ++x) to[x] = from[source[x]];
      }
    }
    std::swap(front_, back_);
  }

  // Rows first, then columns, one row of the result at a time would recompute rows; so the box's resized rows are kept.
  void resize(const StepDraw& draw) {
    columns_.build(draw.box_w, draw.out.width, draw.left);
    rows_.build(draw.box_h, draw.out.height, 0);
    const int width = draw.out.width;
    resized_.resize(static_cast<std::size_t>(std::int64_t{draw.box_h} * width));
    for (int c = 0; c < 3; ++c) {
      for (int y = 0; y < draw.box_h; ++y) {
        const Real* __restrict from = front_.plane(c) + std::int64_t{draw.top + y} * draw.in.width;
        weigh(from, columns_, resized_.data() + std::int64_t{y} * width, width);
      }
      for (int y = 0; y < draw.out.height; ++y) {
        Real* __restrict to = back_.plane(c) + std::int64_t{y} * width;
        for (int t = 0; t < rows_.taps; ++t) {
          const Real weight = rows_.weight(t)[y];
          const Real* __restrict from = resized_.data() + std::int64_t{rows_.source(t)[y]} * width;
          if (t == 0) {
            for (int x = 0; x < width; ++x) to[x] = weight * from[x];
          } else {
            for (int x = 0; x < width; ++x) to[x] += weight * from[x];
          }
        }
      }
    }
    std::swap(front_, back_);
  }

  static void weigh(const Real* __restrict from, const ResizeTable<Real>& table, Real* __restrict to, int width) {
    const std::int32_t* __restrict s0 = table.source(0);
    const std::int32_t* __restrict s1 = table.source(1);
    const Real* __restrict w0 = table.weight(0);
    const Real* __restrict w1 = table.weight(1);
#pragma omp simd
    for (int x = 0; x < width; ++x) to[x] = w0[x] * from[s0[x]] + w1[x] * from[s1[x]];
    for (int t = 2; t < table.taps; ++t) {
      const std::int32_t* __restrict s = table.source(t);
      const Real* __restrict w = table.weight(t);
#pragma omp simd
      for (int x = 0; x < width; ++x) to[x] += w[x] * from[s[x]];
    }
  }

  const AugmentParams& params_;
  ImageSize size_;
  Planes<Real> front_, back_;
  std::vector<std::uint8_t> bytes_[2];
  std::vector<Real> scale_row_, shift_row_;
  std::vector<std::int32_t> source_;
  ResizeTable<Real> columns_, rows_;
  std::vector<Real> resized_;
};

template <typename Real, typename Out>
void augment_batch(const AugmentParams& params, ConstView images, ConstView indices, ConstView epoch, View out) {
  const ImageSize size{static_cast<int>(images.shape[1]), static_cast<int>(images.shape[2])};
  const std::int64_t image_bytes = std::int64_t{3} * size.height * size.width;
  const std::int64_t batch = indices.numel();
  const std::int64_t out_numel = out.numel() / std::max<std::int64_t>(batch, 1);
  const auto* index = indices.as<std::int32_t>();
  const auto epoch_number = static_cast<std::uint32_t>(epoch.as<std::int32_t>()[0]);
#pragma omp parallel
  {
    SampleAugmenter<Real, Out> augmenter(params, size);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < batch; ++i) {
      augmenter.run(images.as<std::uint8_t>() + index[i] * image_bytes, epoch_number,
                    static_cast<std::uint32_t>(index[i]), out.as<Out>() + i * out_numel);
    }
  }
}

}  // namespace

void CpuBackend::augment(const AugmentParams& params, ConstView images, ConstView indices, ConstView epoch, View out,
                         Stream) {
  switch (out.dtype) {
    case DType::f64:
      return augment_batch<double, double>(params, images, indices, epoch, out);
    case DType::f32:
      return augment_batch<float, float>(params, images, indices, epoch, out);
    case DType::bf16:
      return augment_batch<float, bf16>(params, images, indices, epoch, out);
    default:
      fail("augment: images as {}, expected f64, f32 or bf16", name_of(out.dtype));
  }
}

}  // namespace retort::kernels
