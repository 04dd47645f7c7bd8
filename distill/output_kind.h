// Whether what a network gives are logits, told by the numbers alone: a softmax adds up to 1, whoever computed it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/tensor.h"

namespace retort {

enum class OutputKind : std::uint8_t {
  logits,
  probabilities,      // in [0, 1], and each row adds up to 1
  log_probabilities,  // at most 0, and the exponentials of each row add up to 1: logits as good as any
  scores,             // in [0, 1] without adding up to 1, as a sigmoid's
};

// Of rows [.., classes], all of them: one that is something else makes them logits, and so does a number that is not
// finite, a single class, or no row at all. `dtype` is the type that they were computed in, which says how exactly they
// add up.
OutputKind output_kind(std::span<const float> rows, std::int64_t classes, DType dtype);

// Logits of the same softmax: of probabilities their logarithm, where 0 counts as the smallest normal number of f32
// (its logarithm is -87.3); all else as it is.
Tensor as_logits(OutputKind kind, const Tensor& outputs);

// What a user should know of it, or "".
std::string note_about(OutputKind kind);

// The two notes as one; either may be "".
std::string joined_notes(const std::string& first, const std::string& second);

}  // namespace retort
