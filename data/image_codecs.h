// The two formats behind read_image_file(). Each decodes a whole file in memory; `path` is for errors.
#pragma once

#include <span>
#include <string>

#include "data/image_file.h"
#include "kernels/error.h"

namespace retort {

bool is_jpeg(std::span<const std::uint8_t> file);
bool is_png(std::span<const std::uint8_t> file);
Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& path, const ImageLimits& limits);
Image decode_png(std::span<const std::uint8_t> file, const std::string& path, const ImageLimits& limits);

// What a file is that is none of these: "a GIF picture", "empty".
std::string foreign_format(std::span<const std::uint8_t> file);

// Of a size that a file claims to have; allocates the pixels.
inline Image blank_image(std::int64_t height, std::int64_t width, const std::string& path, const ImageLimits& limits) {
  check(height >= 1 && width >= 1 && height <= limits.side && width <= limits.side && height * width <= limits.pixels,
        "{}: claims {} x {} pixels; at most {} a side and {} in all are read", path, width, height, limits.side,
        limits.pixels);
  Image image{static_cast<int>(height), static_cast<int>(width), {}};
  image.pixels.resize(static_cast<std::size_t>(height * width * 3));
  return image;
}

}  // namespace retort
