// The arithmetic of augmentation, shared by the CPU and the CUDA kernels. Steps: kernels/augment.h.
//
// What the random numbers decide for a sample (which pixels go where, the factors) is computed in f64, so that both
// backends take the same pixel; values are Real, the kernel's accumulation type.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/augment.h"
#include "kernels/philox.h"

namespace retort::kernels {

// The four parts of color_jitter, in the order of its tables.
enum JitterPart : std::uint8_t { kBrightness, kContrast, kSaturation, kHue };

// One step of one sample, decided. Only the members of its kind mean something.
struct StepDraw {
  AugmentKind kind;
  ImageSize in, out;
  // Flips and crops: the result's pixel (x, y) is the input's (x0 + sx x, y0 + sy y), black where that is outside.
  std::int32_t x0, sx, y0, sy;
  std::uint8_t order[4];      // color_jitter: the JitterParts in the order of their application
  double factor[4];           // color_jitter, by JitterPart
  double cosine, sine;        // rotation
  std::int32_t top, left;     // resized_crop: the box, top left corner
  std::int32_t box_h, box_w;  // and size
};

// Steps that only move pixels (flips and crops).
RETORT_HOST_DEVICE inline bool is_pixel_move(AugmentKind kind) {
  return kind == AugmentKind::flip || kind == AugmentKind::vertical_flip || kind == AugmentKind::crop;
}

RETORT_HOST_DEVICE inline ImageSize step_size(const AugmentStep& step, ImageSize in) {
  return {step.height > 0 ? step.height : in.height, step.width > 0 ? step.width : in.width};
}

// Uniform in low .. high.
RETORT_HOST_DEVICE inline double uniform_between(double low, double high, std::uint32_t word) {
  return low + (high - low) * static_cast<double>(uniform_of(word));
}

// In 0 .. n - 1. The bias of n / 2^32 is far below what any use here could see.
RETORT_HOST_DEVICE inline std::int32_t integer_below(std::int32_t n, std::uint32_t word) {
  return static_cast<std::int32_t>((std::uint64_t{word} * static_cast<std::uint32_t>(n)) >> 32);
}

// The box of RandomResizedCrop: ten tries for one that fits, else the largest central one of an allowed ratio.
RETORT_HOST_DEVICE inline void draw_box(const AugmentStep& step, std::uint64_t seed, std::uint32_t epoch,
                                        std::uint32_t sample, std::uint32_t first_block, StepDraw& draw) {
  const int height = draw.in.height, width = draw.in.width;
  const double low_ratio = static_cast<double>(step.low[1]), high_ratio = static_cast<double>(step.high[1]);
  for (std::uint32_t attempt = 0; attempt < 10; ++attempt) {
    const Philox4 random = random_block(seed, kPurposeAugment, epoch, sample, first_block + attempt);
    const double area =
        static_cast<double>(height) * width *
        uniform_between(static_cast<double>(step.low[0]), static_cast<double>(step.high[0]), random.v[0]);
    const double ratio = std::exp(uniform_between(std::log(low_ratio), std::log(high_ratio), random.v[1]));
    draw.box_w = static_cast<std::int32_t>(std::rint(std::sqrt(area * ratio)));
    draw.box_h = static_cast<std::int32_t>(std::rint(std::sqrt(area / ratio)));
    if (draw.box_w > 0 && draw.box_w <= width && draw.box_h > 0 && draw.box_h <= height) {
      draw.top = integer_below(height - draw.box_h + 1, random.v[2]);
      draw.left = integer_below(width - draw.box_w + 1, random.v[3]);
      return;
    }
  }
  const double ratio = static_cast<double>(width) / height;
  draw.box_w = width;
  draw.box_h = height;
  if (ratio < low_ratio) {
    draw.box_h = static_cast<std::int32_t>(std::rint(width / low_ratio));
  } else if (ratio > high_ratio) {
    draw.box_w = static_cast<std::int32_t>(std::rint(height * high_ratio));
  }
  draw.top = (height - draw.box_h) / 2;
  draw.left = (width - draw.box_w) / 2;
}

// Decides one step of one sample. Random blocks: those of the k-th step of a kind begin at (kind, k, 0).
RETORT_HOST_DEVICE inline StepDraw draw_step(const AugmentStep& step, ImageSize in, std::uint64_t seed,
                                             std::uint32_t epoch, std::uint32_t sample) {
  const std::uint32_t block = static_cast<std::uint32_t>(step.kind) << 16 | static_cast<std::uint32_t>(step.occurrence)
                                                                                << 8;
  const Philox4 random = random_block(seed, kPurposeAugment, epoch, sample, block);
  StepDraw draw{};
  draw.kind = step.kind;
  draw.in = in;
  draw.out = step_size(step, in);
  draw.sx = draw.sy = 1;
  switch (step.kind) {
    case AugmentKind::flip:
      if (uniform_of(random.v[0]) < step.probability) {
        draw.x0 = in.width - 1;
        draw.sx = -1;
      }
      break;
    case AugmentKind::vertical_flip:
      if (uniform_of(random.v[0]) < step.probability) {
        draw.y0 = in.height - 1;
        draw.sy = -1;
      }
      break;
    case AugmentKind::crop:
      draw.y0 = integer_below(in.height + 2 * step.padding - draw.out.height + 1, random.v[0]) - step.padding;
      draw.x0 = integer_below(in.width + 2 * step.padding - draw.out.width + 1, random.v[1]) - step.padding;
      break;
    case AugmentKind::color_jitter: {
      for (int part = 0; part < 4; ++part) {
        draw.factor[part] =
            uniform_between(static_cast<double>(step.low[part]), static_cast<double>(step.high[part]), random.v[part]);
        draw.order[part] = static_cast<std::uint8_t>(part);
      }
      const Philox4 more = random_block(seed, kPurposeAugment, epoch, sample, block + 1);
      for (int last = 3; last > 0; --last) {
        const int other = integer_below(last + 1, more.v[last]);
        const std::uint8_t swapped = draw.order[last];
        draw.order[last] = draw.order[other];
        draw.order[other] = swapped;
      }
      break;
    }
    case AugmentKind::rotation: {
      const double degrees =
          uniform_between(static_cast<double>(step.low[0]), static_cast<double>(step.high[0]), random.v[0]);
      const double radians = degrees * 0.017453292519943295;
      draw.cosine = std::cos(radians);
      draw.sine = std::sin(radians);
      break;
    }
    case AugmentKind::resized_crop:
      draw_box(step, seed, epoch, sample, block, draw);
      break;
  }
  return draw;
}

// True for the parts of a color_jitter that can change nothing; torchvision leaves them out as well.
RETORT_HOST_DEVICE inline bool jitter_part_is_idle(const AugmentStep& step, int part) {
  const float neutral = part == kHue ? 0.0f : 1.0f;
  return step.low[part] == neutral && step.high[part] == neutral;
}

template <typename Real>
RETORT_HOST_DEVICE inline Real clamp01(Real x) {
  x = x < Real(0) ? Real(0) : x;
  return x > Real(1) ? Real(1) : x;
}

// Luma as torchvision's rgb_to_grayscale.
template <typename Real>
RETORT_HOST_DEVICE inline Real grey_of(Real r, Real g, Real b) {
  return Real(0.2989) * r + Real(0.587) * g + Real(0.114) * b;
}

// `value` moved away from `other` by factor > 1, towards it by factor < 1.
template <typename Real>
RETORT_HOST_DEVICE inline Real blend(Real value, Real other, Real factor) {
  return clamp01(factor * value + (Real(1) - factor) * other);
}

// One channel of the colour with this value (largest channel), chroma and hue; position is hue in sixths of a turn plus
// 5, 3, 1 for red, green, blue. Equal to going through HSV and its six cases.
template <typename Real>
RETORT_HOST_DEVICE inline Real channel_of(Real value, Real chroma, Real position) {
  position -= Real(6) * std::floor(position * Real(1.0 / 6.0));
  const Real other_side = Real(4) - position;
  return value - chroma * clamp01(position < other_side ? position : other_side);
}

// Turns the hue by `shift` sixths of a turn, keeping value and saturation.
template <typename Real>
RETORT_HOST_DEVICE inline void shift_hue(Real& r, Real& g, Real& b, Real shift) {
  const Real max_rg = r > g ? r : g, min_rg = r < g ? r : g;
  const Real value = max_rg > b ? max_rg : b;
  const Real chroma = value - (min_rg < b ? min_rg : b);
  const Real inverse = Real(1) / (chroma > Real(0) ? chroma : Real(1));
  const Real from_red = (g - b) * inverse;
  const Real from_green = Real(2) + (b - r) * inverse;
  const Real from_blue = Real(4) + (r - g) * inverse;
  const Real hue = (value == r ? from_red : (value == g ? from_green : from_blue)) + shift;
  r = channel_of(value, chroma, hue + Real(5));
  g = channel_of(value, chroma, hue + Real(3));
  b = channel_of(value, chroma, hue + Real(1));
}

// Where a rotation's result pixel comes from: x + width y, or -1 outside the image. Counter-clockwise for positive
// angles, about the image's centre.
RETORT_HOST_DEVICE inline std::int32_t rotated_from(const StepDraw& draw, std::int32_t x, std::int32_t y) {
  const double cx = 0.5 * (draw.in.width - 1), cy = 0.5 * (draw.in.height - 1);
  const auto from_x = static_cast<std::int32_t>(std::rint(draw.cosine * (x - cx) - draw.sine * (y - cy) + cx));
  const auto from_y = static_cast<std::int32_t>(std::rint(draw.sine * (x - cx) + draw.cosine * (y - cy) + cy));
  const bool inside = (from_x >= 0) & (from_x < draw.in.width) & (from_y >= 0) & (from_y < draw.in.height);
  return inside ? from_y * draw.in.width + from_x : -1;
}

// Bilinear resizing with antialiasing along one axis, from `in` to `out` pixels: the weight of input pixel j for output
// pixel i is that of a triangle centred on (i + 0.5) in / out; one pixel wide on either side when enlarging, in / out
// pixels when reducing; weights are scaled to sum to 1. Enlarging, this is plain bilinear interpolation.
struct ResizeTaps {
  double centre, inverse_width;
  std::int32_t begin, end;  // input pixels begin .. end - 1
};

RETORT_HOST_DEVICE inline ResizeTaps resize_taps(std::int32_t in, std::int32_t out, std::int32_t i) {
  const double scale = static_cast<double>(in) / out;
  const double reach = scale > 1 ? scale : 1;
  ResizeTaps taps{scale * (i + 0.5), 1 / reach, 0, 0};
  const double begin = taps.centre - reach + 0.5;
  taps.begin = begin > 0 ? static_cast<std::int32_t>(begin) : 0;
  const auto end = static_cast<std::int32_t>(taps.centre + reach + 0.5);
  taps.end = end < in ? end : in;
  return taps;
}

// Before scaling to sum 1.
RETORT_HOST_DEVICE inline double tap_weight(const ResizeTaps& taps, std::int32_t j) {
  const double weight = 1 - std::fabs((j + 0.5 - taps.centre) * taps.inverse_width);
  return weight > 0 ? weight : 0;
}

}  // namespace retort::kernels
