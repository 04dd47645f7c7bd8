// The feature maps that a loss compares: which, and how maps of different size meet.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "distill/losses/loss.h"

namespace retort {

// One feature map of the student beside one of the teacher. Shapes are those of one image: [1, H, W, C], pooled [1, C].
struct TapPair {
  std::string student, teacher;
  Shape student_shape, teacher_shape;
};

enum class DefaultTaps : std::uint8_t { all_stages, second_stage, last_stage, pooled };

// The keys `taps` and `teacher_taps` (by default the same names) of a [[loss]] block.
class TapChoice {
 public:
  TapChoice(ConfigSection& section, DefaultTaps fallback);

  // Asks both networks for the taps. Throws Error where a tap does not exist or the numbers of taps differ.
  std::vector<TapPair> pairs(LossContext& context) const;
  // The same for a loss on exactly one pair.
  TapPair pair(LossContext& context) const;

 private:
  std::vector<std::string> student_, teacher_;
  DefaultTaps fallback_;
};

// Both maps at the smaller of the two sizes: the larger one is pooled by averaging. Vectors [B, C] stay as they are.
std::pair<Tensor, Tensor> match_spatial(const Tensor& student, const Tensor& teacher);

// For losses that need feature maps: throws Error where a pair is of vectors.
void need_maps(const LossContext& context, const char* type, const TapPair& pair);

}  // namespace retort
