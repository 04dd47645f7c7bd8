// Augmentation of training images, one pass from u8 to the network's input.
#pragma once

namespace retort::kernels {

struct AugmentParams {};

}  // namespace retort::kernels
