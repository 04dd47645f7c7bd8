#include "kernels/augment.h"

#include "kernels/augment_math.h"
#include "kernels/error.h"

namespace retort::kernels {

void check_augment(const AugmentParams& params, ImageSize size) {
  check(params.step_count >= 0 && params.step_count <= kMaxAugmentSteps, "augment: {} steps, at most {} are possible",
        params.step_count, kMaxAugmentSteps);
  for (int i = 0; i < params.step_count; ++i) {
    const AugmentStep& step = params.steps[i];
    const ImageSize out = step_size(step, size);
    if (step.kind == AugmentKind::crop) {
      check(out.height <= size.height + 2 * step.padding && out.width <= size.width + 2 * step.padding,
            "augment: a crop of {} x {} from an image of {} x {} with padding {}", out.height, out.width, size.height,
            size.width, step.padding);
    } else if (step.kind != AugmentKind::resized_crop) {
      check(out == size, "augment: step {} cannot change the size of the image", i + 1);
    }
    size = out;
  }
  for (int c = 0; c < 3; ++c) {
    check(params.std[c] > 0, "augment: normalisation by a standard deviation of {}, expected above 0", params.std[c]);
  }
}

ImageSize augmented_size(const AugmentParams& params, ImageSize size) {
  for (int i = 0; i < params.step_count; ++i) size = step_size(params.steps[i], size);
  return size;
}

}  // namespace retort::kernels
