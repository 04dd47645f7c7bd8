#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/error.h"

namespace retort {
namespace {

constexpr int kFraction = 22;                      // bits; leaves 8 for the value and 2 for the sum's overshoot
constexpr std::int64_t kMostPixels = 256'000'000;  // a strip of one pixel's height would become endless

// Which pixels of the input make one of the output, and how much of each, along one axis.
struct Taps {
  std::vector<int> first, count;      // [out]
  std::vector<std::int32_t> weights;  // [out, stride]
  int stride = 0;
};

Taps taps_of(int in, int out) {
  const double step = static_cast<double>(in) / out;
  const double widening = std::max(step, 1.0);
  Taps taps;
  taps.stride = 2 * static_cast<int>(std::ceil(widening)) + 1;
  taps.weights.resize(static_cast<std::size_t>(out) * static_cast<std::size_t>(taps.stride));
  std::vector<double> exact(static_cast<std::size_t>(taps.stride));
  for (int o = 0; o < out; ++o) {
    const double center = (o + 0.5) * step;
    const int first = std::max(0, static_cast<int>(center - widening + 0.5));
    const int end = std::min(in, static_cast<int>(center + widening + 0.5));
    double sum = 0;
    for (int i = first; i < end; ++i) {
      const double distance = std::abs((i - center + 0.5) * (1.0 / widening));
      const double weight = distance < 1 ? 1 - distance : 0;
      exact[static_cast<std::size_t>(i - first)] = weight;
      sum += weight;
    }
    std::int32_t* const weights = taps.weights.data() + static_cast<std::ptrdiff_t>(o) * taps.stride;
    for (int k = 0; k < end - first; ++k) {
      const double weight = exact[static_cast<std::size_t>(k)];
      weights[k] = static_cast<std::int32_t>(0.5 + (sum != 0 ? weight / sum : weight) * (1 << kFraction));
    }
    taps.first.push_back(first);
    taps.count.push_back(end - first);
  }
  return taps;
}

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFraction, 0, 255));
}

Image resized_width(const Image& image, int width) {
  const Taps taps = taps_of(image.width, width);
  Image out{image.height, width, {}};
  out.pixels.resize(static_cast<std::size_t>(image.height) * static_cast<std::size_t>(width) * 3);
  std::uint8_t* to = out.pixels.data();
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < width; ++x, to += 3) {
      const std::int32_t* const weights = taps.weights.data() + static_cast<std::ptrdiff_t>(x) * taps.stride;
      const std::uint8_t* from = image.at(y, taps.first[static_cast<std::size_t>(x)]);
      std::int32_t sum[3] = {1 << (kFraction - 1), 1 << (kFraction - 1), 1 << (kFraction - 1)};
      for (int k = 0; k < taps.count[static_cast<std::size_t>(x)]; ++k, from += 3) {
        for (int c = 0; c < 3; ++c) sum[c] += from[c] * weights[k];
      }
      for (int c = 0; c < 3; ++c) to[c] = rounded(sum[c]);
    }
  }
  return out;
}

Image resized_height(const Image& image, int height) {
  const Taps taps = taps_of(image.height, height);
  Image out{height, image.width, {}};
  const std::size_t row = static_cast<std::size_t>(image.width) * 3;
  out.pixels.resize(static_cast<std::size_t>(height) * row);
  std::vector<std::int32_t> sums(row);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kFraction - 1));
    const std::int32_t* const weights = taps.weights.data() + static_cast<std::ptrdiff_t>(y) * taps.stride;
    for (int k = 0; k < taps.count[static_cast<std::size_t>(y)]; ++k) {
      const std::uint8_t* const from = image.at(taps.first[static_cast<std::size_t>(y)] + k, 0);
      const std::int32_t weight = weights[k];
      for (std::size_t i = 0; i < row; ++i) sums[i] += from[i] * weight;
    }
    std::uint8_t* const to = out.pixels.data() + static_cast<std::size_t>(y) * row;
    std::transform(sums.begin(), sums.end(), to, rounded);
  }
  return out;
}

}  // namespace

Image resized(const Image& image, int height, int width) {
  // Each pass rounds to 8 bits, so their order shows in the result. This is Pillow's choice.
  const bool columns_first = height < image.height && image.height - height > 2 * (image.width - width);
  const std::int64_t between =
      columns_first ? static_cast<std::int64_t>(height) * image.width : static_cast<std::int64_t>(image.height) * width;
  check(height >= 1 && width >= 1 && std::max(static_cast<std::int64_t>(height) * width, between) <= kMostPixels,
        "resize: {} x {} pixels would become {} x {}", image.width, image.height, width, height);
  const auto across = [&](const Image& from) { return width == from.width ? from : resized_width(from, width); };
  const auto down = [&](const Image& from) { return height == from.height ? from : resized_height(from, height); };
  return columns_first ? across(down(image)) : down(across(image));
}

Image resized_shorter_side(const Image& image, int side) {
  const auto longer = [&](int the_longer, int the_shorter) {
    return static_cast<int>(static_cast<std::int64_t>(side) * the_longer / the_shorter);
  };
  return image.width <= image.height ? resized(image, longer(image.height, image.width), side)
                                     : resized(image, side, longer(image.width, image.height));
}

Image center_cropped(const Image& image, int height, int width) {
  check(height >= 1 && width >= 1 && height <= image.height && width <= image.width,
        "crop: {} x {} pixels of an image of {} x {}", width, height, image.width, image.height);
  // Halves are rounded to the even number.
  const auto begin = [](int rest) { return rest / 2 + (rest % 2 == 1 && rest / 2 % 2 == 1 ? 1 : 0); };
  const int top = begin(image.height - height), left = begin(image.width - width);
  Image out{height, width, {}};
  out.pixels.resize(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3);
  for (int y = 0; y < height; ++y) {
    std::memcpy(out.pixels.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 3,
                image.at(top + y, left), static_cast<std::size_t>(width) * 3);
  }
  return out;
}

}  // namespace retort
