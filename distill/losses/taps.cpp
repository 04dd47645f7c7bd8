#include "distill/losses/taps.h"

#include <fmt/ranges.h>

#include "engine/ops.h"
#include "engine/suggest.h"

namespace retort {
namespace {

std::vector<std::string> default_taps(const NetworkShape& network, DefaultTaps which) {
  switch (which) {
    case DefaultTaps::all_stages:
      return network.stages;
    case DefaultTaps::second_stage:
      return {network.stages.at(1)};
    case DefaultTaps::last_stage:
      return {network.stages.back()};
    case DefaultTaps::pooled:
      return {"pooled"};
  }
  return {};
}

Shape shape_of(const LossContext& context, const NetworkShape& network, const char* role, const std::string& tap) {
  const auto found = network.taps.find(tap);
  if (found != network.taps.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [name, shape] : network.taps) names.push_back(name);
  context.reject(
      fmt::format("the {}, {}, has no tap {}; it has {}", role, network.arch, in_quotes(tap), fmt::join(names, ", ")));
}

}  // namespace

TapChoice::TapChoice(ConfigSection& section, DefaultTaps fallback) : fallback_(fallback) {
  section.read("taps", student_);
  teacher_ = student_;
  section.read("teacher_taps", teacher_);
}

std::vector<TapPair> TapChoice::pairs(LossContext& context) const {
  const auto student = student_.empty() ? default_taps(context.student, fallback_) : student_;
  const auto teacher = teacher_.empty() ? default_taps(context.teacher, fallback_) : teacher_;
  if (student.size() != teacher.size()) {
    context.reject(
        fmt::format("needs as many taps of the student as of the teacher, but {} has {} ({}) and {} has {} "
                    "({}); choose with taps and teacher_taps",
                    context.student.arch, student.size(), fmt::join(student, ", "), context.teacher.arch,
                    teacher.size(), fmt::join(teacher, ", ")));
  }
  std::vector<TapPair> pairs;
  for (std::size_t i = 0; i < student.size(); ++i) {
    TapPair pair{student[i], teacher[i], shape_of(context, context.student, "student", student[i]),
                 shape_of(context, context.teacher, "teacher", teacher[i])};
    if (pair.student_shape.rank() != pair.teacher_shape.rank()) {
      context.reject(fmt::format("the student's tap {} and the teacher's {} are a feature map and a vector",
                                 pair.student, pair.teacher));
    }
    context.student_taps.insert(pair.student);
    context.teacher_taps.insert(pair.teacher);
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

TapPair TapChoice::pair(LossContext& context) const {
  std::vector<TapPair> all = pairs(context);
  if (all.size() != 1) context.reject(fmt::format("compares one tap, got {}", all.size()));
  return std::move(all.front());
}

std::pair<Tensor, Tensor> match_spatial(const Tensor& student, const Tensor& teacher) {
  if (student.rank() != 4) return {student, teacher};
  const std::int64_t h = std::min(student.dim(1), teacher.dim(1)), w = std::min(student.dim(2), teacher.dim(2));
  const auto at_size = [&](const Tensor& x) {
    return x.dim(1) == h && x.dim(2) == w ? x : adaptive_average_pool(x, h, w);
  };
  return {at_size(student), at_size(teacher)};
}

void need_maps(const LossContext& context, const char* type, const TapPair& pair) {
  if (pair.student_shape.rank() == 4) return;
  context.reject(fmt::format("{} compares feature maps, but the tap {} is a vector", type, pair.student));
}

}  // namespace retort
