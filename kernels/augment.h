// Augmentation of training images: what to do, as plain data that travels to the device by value. The arithmetic is in
// kernels/augment_math.h.
//
// An image goes through the steps in order, as values in [0, 1] (u8 / 255) that are never rounded in between, and is
// then normalised: (value - mean[c]) / std[c]. Each step means what torchvision's transform of that name means on float
// images. The random numbers of a sample depend on (seed, epoch, index in the data set), on the kind of a step and on
// how many steps of that kind precede it: not on the batch, nor on the other steps.
#pragma once

#include <cstdint>

namespace retort::kernels {

enum class AugmentKind : std::uint8_t {
  flip,           // RandomHorizontalFlip(probability)
  vertical_flip,  // RandomVerticalFlip(probability)
  crop,           // RandomCrop(size, padding), zero padding
  color_jitter,   // ColorJitter: the four in random order
  rotation,       // RandomRotation(degrees), nearest pixel, zero outside
  resized_crop,   // RandomResizedCrop(size, scale, ratio), bilinear with antialiasing
};

struct AugmentStep {
  AugmentKind kind = AugmentKind::flip;
  std::int32_t occurrence = 0;         // steps of the same kind before this one
  std::int32_t height = 0, width = 0;  // of the result; 0 keeps the input's
  std::int32_t padding = 0;            // crop
  float probability = 0.5f;            // flips
  // color_jitter: factors of brightness, contrast and saturation (1 changes nothing), shift of hue in turns (0 changes
  // nothing). rotation: degrees in [0]. resized_crop: fraction of the area in [0], width / height in [1].
  float low[4] = {};
  float high[4] = {};
};

inline constexpr int kMaxAugmentSteps = 8;

struct AugmentParams {
  std::uint64_t seed = 0;
  std::int32_t step_count = 0;  // 0: only gather and normalise, as validation does
  AugmentStep steps[kMaxAugmentSteps];
  double mean[3] = {0, 0, 0};
  double std[3] = {1, 1, 1};
};

struct ImageSize {
  int height, width;
  bool operator==(const ImageSize&) const = default;
};

// The size of the images that leave the last step.
ImageSize augmented_size(const AugmentParams& params, ImageSize size);

// Throws Error where the steps do not fit images of this size.
void check_augment(const AugmentParams& params, ImageSize size);

}  // namespace retort::kernels
