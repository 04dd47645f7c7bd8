#include "distill/output_kind.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/ops/frozen.h"

namespace retort {

OutputKind output_kind(std::span<const float> rows, std::int64_t classes, DType dtype) {
  if (classes < 2 || rows.empty()) return OutputKind::logits;
  const double tolerance = dtype == DType::bf16 ? 2e-2 : 1e-3;
  bool within_one = true, adds_up = true, below_zero = true, exponentials_add_up = true;
  const auto columns = static_cast<std::size_t>(classes);
  for (std::size_t begin = 0; begin + columns <= rows.size(); begin += columns) {
    double sum = 0, exponentials = 0;
    for (const float v : rows.subspan(begin, columns)) {
      if (!std::isfinite(v)) return OutputKind::logits;
      within_one = within_one && v >= 0 && v <= 1 + tolerance;
      below_zero = below_zero && v <= tolerance;
      sum += v;
      exponentials += std::exp(static_cast<double>(v));
    }
    adds_up = adds_up && std::abs(sum - 1) <= tolerance;
    exponentials_add_up = exponentials_add_up && std::abs(exponentials - 1) <= tolerance;
    if (!within_one && !below_zero) return OutputKind::logits;
  }
  if (within_one) return adds_up ? OutputKind::probabilities : OutputKind::scores;
  return exponentials_add_up ? OutputKind::log_probabilities : OutputKind::logits;
}

Tensor as_logits(OutputKind kind, const Tensor& outputs) {
  if (kind != OutputKind::probabilities) return outputs;
  constexpr double kLeast = std::numeric_limits<float>::min();
  return unary(unary(outputs, kernels::Unary::clip, kLeast, INFINITY), kernels::Unary::log);
}

std::string note_about(OutputKind kind) {
  switch (kind) {
    case OutputKind::logits:
      return "";
    case OutputKind::probabilities:
      return "its outputs are probabilities, which add up to 1 (a softmax); their logarithms are taken for logits";
    case OutputKind::log_probabilities:
      return "its outputs are logarithms of probabilities (a log-softmax), which serve as logits";
    case OutputKind::scores:
      return "its outputs all lie between 0 and 1 without adding up to 1, as behind a sigmoid; they are taken for "
             "logits as they are, which makes every prediction an uncertain one";
  }
  return "";
}

std::string joined_notes(const std::string& first, const std::string& second) {
  return first + (first.empty() || second.empty() ? "" : "; ") + second;
}

}  // namespace retort
