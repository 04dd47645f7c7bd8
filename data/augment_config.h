// From what a configuration says about augmentation to the kernel's parameters. Knows nothing of TOML.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/augment.h"
#include "kernels/error.h"

namespace retort {

// One entry of the list `augment`: a plain name, or a table with its parameters.
//
//   name            parameters (a number, or an array of two: [low, high])       default
//   flip            p                                                            0.5
//   vertical_flip   p                                                            0.5
//   crop            padding, size (0 keeps the image's; [height, width])         4, 0
//   color_jitter    brightness, contrast, saturation (b: factors 1 - b .. 1 + b) 0.2, 0.2, 0.2
//                   hue (h: -h .. h, in turns)                                   0.1
//   rotation        degrees (d: -d .. d)                                         10
//   resized_crop    scale, ratio (arrays), size                                  [0.8, 1], [0.9, 1.1], 0
//
// In a color_jitter table only the parts that are named are applied.
struct AugmentStepConfig {
  std::string name;
  std::map<std::string, std::vector<double>> values;  // a plain number is an array of one
};

// What is wrong with a step, for a caller that knows where it was written: `problem` is about `parameter`, or where that
// is empty about the step.
class AugmentError : public Error {
 public:
  AugmentError(const std::string& text, std::string parameter_, std::string problem_)
      : Error(text), parameter(std::move(parameter_)), problem(std::move(problem_)) {}
  std::string parameter, problem;
};

std::vector<std::string> augment_names();
// All that can be said of a step without the images: its name, its parameters and their values. Throws AugmentError.
void check_augment_step(const AugmentStepConfig& step);

struct Normalization {
  double mean[3] = {0, 0, 0};
  double std[3] = {1, 1, 1};
};

// "imagenet", "cifar10", "cifar100", "half" (0.5 and 0.5), "none" (values stay in [0, 1]). Throws Error naming the
// nearest.
Normalization normalization_preset(const std::string& name);
std::vector<std::string> normalization_names();

// Steps in the order of the list, for images of `size`. Throws AugmentError on an unknown name (naming the nearest) and
// an unknown or impossible value, Error on a crop that does not fit and on more than kMaxAugmentSteps steps.
kernels::AugmentParams make_augment_params(const std::vector<AugmentStepConfig>& steps,
                                           const Normalization& normalization, std::uint64_t seed,
                                           kernels::ImageSize size);

}  // namespace retort
