#include "tests/support/reference_augment.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/philox.h"

namespace retort::reference {
namespace {

using kernels::AugmentKind;
using kernels::AugmentStep;

struct Random {
  std::uint64_t seed;
  std::uint32_t epoch, sample, first_block;

  std::uint32_t word(std::uint32_t i) const {
    return random_block(seed, kPurposeAugment, epoch, sample, first_block + i / 4).v[i % 4];
  }
  double uniform(std::uint32_t i, double low, double high) const {
    return low + (high - low) * ((word(i) >> 8) / 16777216.0);
  }
  int below(std::uint32_t i, int n) const { return static_cast<int>(std::floor(word(i) / 4294967296.0 * n)); }
};

Image mapped(int height, int width, auto&& value) {
  Image out{height, width, std::vector<double>(static_cast<std::size_t>(height * width * 3))};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) out.at(y, x, c) = value(y, x, c);
    }
  }
  return out;
}

double grey(const Image& image, int y, int x) {
  return 0.2989 * image.at(y, x, 0) + 0.587 * image.at(y, x, 1) + 0.114 * image.at(y, x, 2);
}

double blended(double a, double b, double ratio) {
  return std::clamp(ratio * a + (1 - ratio) * b, 0.0, 1.0);
}

std::array<double, 3> turned_hue(std::array<double, 3> rgb, double shift) {
  const auto [r, g, b] = rgb;
  const double max = std::max({r, g, b}), min = std::min({r, g, b}), range = max - min;
  const double saturation = max > 0 ? range / max : 0;
  double hue = 0;
  if (range > 0) {
    if (max == r) {
      hue = std::fmod((g - b) / range / 6 + 1, 1.0);
    } else if (max == g) {
      hue = (2 + (b - r) / range) / 6;
    } else {
      hue = (4 + (r - g) / range) / 6;
    }
  }
  hue += shift;
  hue -= std::floor(hue);
  const int sector = static_cast<int>(std::floor(hue * 6));
  const double f = hue * 6 - sector;
  const double p = max * (1 - saturation), q = max * (1 - saturation * f), t = max * (1 - saturation * (1 - f));
  switch (sector % 6) {
    case 0:
      return {max, t, p};
    case 1:
      return {q, max, p};
    case 2:
      return {p, max, t};
    case 3:
      return {p, q, max};
    case 4:
      return {t, p, max};
    default:
      return {max, p, q};
  }
}

Image jittered(const AugmentStep& step, const Random& random, Image image) {
  std::array<int, 4> order = {0, 1, 2, 3};
  for (int last = 3; last > 0; --last) {
    std::swap(order[static_cast<std::size_t>(last)],
              order[static_cast<std::size_t>(random.below(static_cast<std::uint32_t>(4 + last), last + 1))]);
  }
  for (const int part : order) {
    const double factor = random.uniform(static_cast<std::uint32_t>(part), step.low[part], step.high[part]);
    double mean = 0;
    for (int y = 0; y < image.height; ++y) {
      for (int x = 0; x < image.width; ++x) mean += grey(image, y, x) / (image.height * image.width);
    }
    for (int y = 0; y < image.height; ++y) {
      for (int x = 0; x < image.width; ++x) {
        const double own_grey = grey(image, y, x);
        if (part == 3) {
          const auto rgb = turned_hue({image.at(y, x, 0), image.at(y, x, 1), image.at(y, x, 2)}, factor);
          for (int c = 0; c < 3; ++c) image.at(y, x, c) = rgb[static_cast<std::size_t>(c)];
        } else {
          const double other = part == 0 ? 0 : (part == 1 ? mean : own_grey);
          for (int c = 0; c < 3; ++c) image.at(y, x, c) = blended(image.at(y, x, c), other, factor);
        }
      }
    }
  }
  return image;
}

// By way of normalised coordinates, as torch's affine_grid and grid_sample(align_corners=False).
Image rotated(const Image& image, double degrees) {
  const double a = degrees * std::acos(-1.0) / 180, h = image.height, w = image.width;
  return mapped(image.height, image.width, [&](int y, int x, int c) {
    const double bx = x + 0.5 - w / 2, by = y + 0.5 - h / 2;
    const double gx = (std::cos(a) * bx - std::sin(a) * by) / (w / 2),
                 gy = (std::sin(a) * bx + std::cos(a) * by) / (h / 2);
    const int ix = static_cast<int>(std::nearbyint(((gx + 1) * w - 1) / 2));
    const int iy = static_cast<int>(std::nearbyint(((gy + 1) * h - 1) / 2));
    return ix >= 0 && ix < image.width && iy >= 0 && iy < image.height ? image.at(iy, ix, c) : 0.0;
  });
}

// Row i: the weights of all input pixels for output pixel i.
std::vector<std::vector<double>> triangle_weights(int in, int out) {
  std::vector<std::vector<double>> rows;
  const double scale = static_cast<double>(in) / out, reach = std::max(1.0, scale);
  for (int i = 0; i < out; ++i) {
    std::vector<double> row;
    double total = 0;
    for (int j = 0; j < in; ++j) {
      row.push_back(std::max(0.0, 1 - std::fabs(j + 0.5 - scale * (i + 0.5)) / reach));
      total += row.back();
    }
    for (double& weight : row) weight /= total;
    rows.push_back(row);
  }
  return rows;
}

Image resized_crop(const AugmentStep& step, const Random& random, const Image& image) {
  const int height = step.height > 0 ? step.height : image.height, width = step.width > 0 ? step.width : image.width;
  int top = -1, left = -1, h = 0, w = 0;
  for (std::uint32_t attempt = 0; attempt < 10 && top < 0; ++attempt) {
    const double area = image.height * image.width * random.uniform(4 * attempt, step.low[0], step.high[0]);
    const double ratio = std::exp(random.uniform(4 * attempt + 1, std::log(static_cast<double>(step.low[1])),
                                                 std::log(static_cast<double>(step.high[1]))));
    w = static_cast<int>(std::nearbyint(std::sqrt(area * ratio)));
    h = static_cast<int>(std::nearbyint(std::sqrt(area / ratio)));
    if (w > 0 && h > 0 && w <= image.width && h <= image.height) {
      top = random.below(4 * attempt + 2, image.height - h + 1);
      left = random.below(4 * attempt + 3, image.width - w + 1);
    }
  }
  if (top < 0) {
    const double ratio = static_cast<double>(image.width) / image.height;
    const double low = static_cast<double>(step.low[1]), high = static_cast<double>(step.high[1]);
    w = ratio > high ? static_cast<int>(std::nearbyint(image.height * high)) : image.width;
    h = ratio < low ? static_cast<int>(std::nearbyint(image.width / low)) : image.height;
    top = (image.height - h) / 2;
    left = (image.width - w) / 2;
  }
  const auto rows = triangle_weights(h, height), columns = triangle_weights(w, width);
  return mapped(height, width, [&](int y, int x, int c) {
    double sum = 0;
    for (int j = 0; j < h; ++j) {
      if (rows[static_cast<std::size_t>(y)][static_cast<std::size_t>(j)] == 0) continue;  // most of them
      for (int i = 0; i < w; ++i) {
        sum += rows[static_cast<std::size_t>(y)][static_cast<std::size_t>(j)] *
               columns[static_cast<std::size_t>(x)][static_cast<std::size_t>(i)] * image.at(top + j, left + i, c);
      }
    }
    return sum;
  });
}

Image stepped(const AugmentStep& step, const Random& random, const Image& image) {
  const int h = image.height, w = image.width;
  switch (step.kind) {
    case AugmentKind::flip:
      if (random.uniform(0, 0, 1) >= static_cast<double>(step.probability)) return image;
      return mapped(h, w, [&](int y, int x, int c) { return image.at(y, w - 1 - x, c); });
    case AugmentKind::vertical_flip:
      if (random.uniform(0, 0, 1) >= static_cast<double>(step.probability)) return image;
      return mapped(h, w, [&](int y, int x, int c) { return image.at(h - 1 - y, x, c); });
    case AugmentKind::crop: {
      const int out_h = step.height > 0 ? step.height : h, out_w = step.width > 0 ? step.width : w, p = step.padding;
      const int top = random.below(0, h + 2 * p - out_h + 1), left = random.below(1, w + 2 * p - out_w + 1);
      const Image padded = mapped(h + 2 * p, w + 2 * p, [&](int y, int x, int c) {
        return y >= p && y < h + p && x >= p && x < w + p ? image.at(y - p, x - p, c) : 0.0;
      });
      return mapped(out_h, out_w, [&](int y, int x, int c) { return padded.at(top + y, left + x, c); });
    }
    case AugmentKind::color_jitter:
      return jittered(step, random, image);
    case AugmentKind::rotation:
      return rotated(image, random.uniform(0, step.low[0], step.high[0]));
    case AugmentKind::resized_crop:
      return resized_crop(step, random, image);
  }
  return image;
}

}  // namespace

Image augment(const kernels::AugmentParams& params, const std::uint8_t* image, int height, int width,
              std::uint32_t epoch, std::uint32_t sample) {
  Image result = mapped(height, width, [&](int y, int x, int c) { return image[(y * width + x) * 3 + c] / 255.0; });
  for (int i = 0; i < params.step_count; ++i) {
    const AugmentStep& step = params.steps[i];
    std::uint32_t before = 0;  // steps of this kind
    for (int j = 0; j < i; ++j) before += params.steps[j].kind == step.kind ? 1 : 0;
    const Random random{params.seed, epoch, sample, static_cast<std::uint32_t>(step.kind) << 16 | before << 8};
    result = stepped(step, random, result);
  }
  return mapped(result.height, result.width,
                [&](int y, int x, int c) { return (result.at(y, x, c) - params.mean[c]) / params.std[c]; });
}

}  // namespace retort::reference
