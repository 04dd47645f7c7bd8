#include "data/augment_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

using kernels::AugmentKind;
using kernels::AugmentStep;

constexpr int kLargestSide = 1 << 16;

// The values of one step, taken one by one; what is left over at the end was unknown.
class StepValues {
 public:
  explicit StepValues(const AugmentStepConfig& config) : config_(config) {}

  bool given(const std::string& key) const { return config_.values.contains(key); }

  // One number or two.
  std::vector<double> take(const std::string& key, std::vector<double> otherwise) {
    known_.push_back(key);
    const auto it = config_.values.find(key);
    if (it == config_.values.end()) return otherwise;
    for (const double value : it->second) require(std::isfinite(value), key, it->second, "expected finite numbers");
    return it->second;
  }

  // Throws unless `ok`.
  void require(bool ok, const std::string& key, const std::vector<double>& values, const std::string& problem) const {
    if (ok) return;
    throw AugmentError(fmt::format("augment: {}.{} is {}, {}", config_.name, key, text(values), problem), key, problem);
  }

  double number(const std::string& key, double otherwise, double low, double high) {
    const auto values = take(key, {otherwise});
    require(values.size() == 1 && values[0] >= low && values[0] <= high, key, values,
            fmt::format("expected a number from {} to {}", low, high));
    return values[0];
  }

  // An array [low, high], or a number d that stands for centre - d .. centre + d, within the limits. A range that
  // begins below `floor` begins at `floor` when it was written as a number, as torchvision does.
  std::pair<float, float> range(const std::string& key, std::vector<double> otherwise, double centre, double floor,
                                double limit) {
    const auto given = take(key, std::move(otherwise));
    auto values = given;
    if (values.size() == 1) {
      require(values[0] >= 0, key, given, "expected a number from 0 on or an array [low, high]");
      values = {std::max(floor, centre - values[0]), centre + values[0]};
    }
    require(values.size() == 2 && values[0] <= values[1] && values[0] >= floor && values[1] <= limit, key, given,
            fmt::format("expected an array [low, high] within {} and {}, or a number up to {}", floor, limit,
                        limit - centre));
    return {static_cast<float>(values[0]), static_cast<float>(values[1])};
  }

  // [height, width], or one number for both; 0 keeps the input's.
  std::pair<int, int> size() {
    const auto given = take("size", {0});
    auto values = given;
    if (values.size() == 1) values.push_back(values[0]);
    require(values.size() == 2 && whole(values[0]) && whole(values[1]), "size", given,
            fmt::format("expected a whole number of pixels or [height, width], up to {}", kLargestSide));
    return {static_cast<int>(values[0]), static_cast<int>(values[1])};
  }

  void finish() const {
    for (const auto& [key, value] : config_.values) {
      if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
      const std::string hint = fmt::format("{}; known: {}", did_you_mean(key, known_), fmt::join(known_, ", "));
      throw AugmentError(fmt::format("augment: {} has no parameter {}{}", config_.name, in_quotes(key), hint), key,
                         fmt::format("{} has no such parameter{}", config_.name, hint));
    }
  }

  static bool whole(double value) { return value >= 0 && value <= kLargestSide && value == std::floor(value); }
  static std::string text(const std::vector<double>& values) {
    return values.size() == 1 ? fmt::format("{}", values[0]) : fmt::format("[{}]", fmt::join(values, ", "));
  }

 private:
  const AugmentStepConfig& config_;
  std::vector<std::string> known_;
};

constexpr double kAny = 1e6;

const std::vector<std::string> kStepNames = {"flip",     "vertical_flip", "crop", "color_jitter",
                                             "rotation", "resized_crop"};  // in AugmentKind's order

void read_color_jitter(StepValues& values, bool all_parts, AugmentStep& step) {
  const char* const parts[4] = {"brightness", "contrast", "saturation", "hue"};
  for (int part = 0; part < 4; ++part) {
    const bool hue = part == 3;
    const double usual = all_parts ? (hue ? 0.1 : 0.2) : 0.0;
    const auto [low, high] = values.range(parts[part], {usual}, hue ? 0 : 1, hue ? -0.5 : 0, hue ? 0.5 : kAny);
    step.low[part] = low;
    step.high[part] = high;
  }
}

void read_resized_crop(StepValues& values, AugmentStep& step) {
  std::tie(step.height, step.width) = values.size();
  const auto scale = values.take("scale", {0.8, 1.0});
  values.require(scale.size() == 2 && scale[0] > 0 && scale[0] <= scale[1] && scale[1] <= 1, "scale", scale,
                 "expected [low, high] within 0 and 1");
  const auto ratio = values.take("ratio", {0.9, 1.1});
  values.require(ratio.size() == 2 && ratio[0] > 0 && ratio[0] <= ratio[1], "ratio", ratio,
                 "expected [low, high] above 0");
  for (int i = 0; i < 2; ++i) {
    const auto& range = i == 0 ? scale : ratio;
    step.low[i] = static_cast<float>(range[0]);
    step.high[i] = static_cast<float>(range[1]);
  }
}

AugmentStep read_step(const AugmentStepConfig& config) {
  const auto name = std::find(kStepNames.begin(), kStepNames.end(), config.name);
  if (name == kStepNames.end()) {
    const std::string problem = fmt::format("no step is called {}{}; known: {}", in_quotes(config.name),
                                            did_you_mean(config.name, kStepNames), fmt::join(kStepNames, ", "));
    throw AugmentError("augment: " + problem, "", problem);
  }
  StepValues values(config);
  AugmentStep step;
  step.kind = static_cast<AugmentKind>(name - kStepNames.begin());
  switch (step.kind) {
    case AugmentKind::flip:
    case AugmentKind::vertical_flip:
      step.probability = static_cast<float>(values.number("p", 0.5, 0, 1));
      break;
    case AugmentKind::crop: {
      const double padding = values.number("padding", 4, 0, 4096);
      values.require(StepValues::whole(padding), "padding", {padding}, "expected a whole number of pixels");
      step.padding = static_cast<std::int32_t>(padding);
      std::tie(step.height, step.width) = values.size();
      break;
    }
    case AugmentKind::color_jitter:
      read_color_jitter(values, config.values.empty(), step);
      break;
    case AugmentKind::rotation:
      std::tie(step.low[0], step.high[0]) = values.range("degrees", {10}, 0, -360, 360);
      break;
    case AugmentKind::resized_crop:
      read_resized_crop(values, step);
      break;
  }
  values.finish();
  return step;
}

}  // namespace

namespace {

// cifar10: over its training images. cifar100: the values that the code behind the published distillation tables uses.
const std::map<std::string, Normalization>& presets() {
  static const std::map<std::string, Normalization> all = {
      {"imagenet", {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}},
      {"cifar10", {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}}},
      {"cifar100", {{0.5071, 0.4867, 0.4408}, {0.2675, 0.2565, 0.2761}}},
      {"half", {{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}},
      {"none", {}}};
  return all;
}

}  // namespace

std::vector<std::string> augment_names() {
  return kStepNames;
}

void check_augment_step(const AugmentStepConfig& step) {
  read_step(step);
}

std::vector<std::string> normalization_names() {
  std::vector<std::string> names;
  for (const auto& preset : presets()) names.push_back(preset.first);
  return names;
}

Normalization normalization_preset(const std::string& name) {
  const auto it = presets().find(name);
  if (it != presets().end()) return it->second;
  const std::vector<std::string> names = normalization_names();
  fail("normalize: no preset is called {}{}; known: {}, or a table with mean and std", in_quotes(name),
       did_you_mean(name, names), fmt::join(names, ", "));
}

kernels::AugmentParams make_augment_params(const std::vector<AugmentStepConfig>& steps,
                                           const Normalization& normalization, std::uint64_t seed,
                                           kernels::ImageSize size) {
  check(steps.size() <= static_cast<std::size_t>(kernels::kMaxAugmentSteps),
        "augment: {} steps, at most {} are possible", steps.size(), kernels::kMaxAugmentSteps);
  kernels::AugmentParams params;
  params.seed = seed;
  for (int c = 0; c < 3; ++c) {
    params.mean[c] = normalization.mean[c];
    params.std[c] = normalization.std[c];
  }
  for (const AugmentStepConfig& config : steps) {
    AugmentStep step = read_step(config);
    for (int i = 0; i < params.step_count; ++i) step.occurrence += params.steps[i].kind == step.kind ? 1 : 0;
    params.steps[params.step_count++] = step;
  }
  check_augment(params, size);
  return params;
}

}  // namespace retort
