// Augmentation written down a second time, plainly and in f64, from torchvision's definitions: what the kernels are
// compared with. Shares with them only the Philox generator and the list of steps.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/augment.h"

namespace retort::reference {

struct Image {
  int height, width;
  std::vector<double> values;  // [height, width, 3]
  double& at(int y, int x, int c) { return values[static_cast<std::size_t>((y * width + x) * 3 + c)]; }
  double at(int y, int x, int c) const { return values[static_cast<std::size_t>((y * width + x) * 3 + c)]; }
};

Image augment(const kernels::AugmentParams& params, const std::uint8_t* image, int height, int width,
              std::uint32_t epoch, std::uint32_t sample);

}  // namespace retort::reference
