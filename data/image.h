// An image in host memory, and sizes as images have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace retort {

struct Image {
  int height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // [height, width, 3], RGB

  const std::uint8_t* at(int y, int x) const {
    return pixels.data() + 3 * (std::size_t(y) * std::size_t(width) + std::size_t(x));
  }
};

}  // namespace retort
