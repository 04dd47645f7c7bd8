// Distillation losses: a registry from a type's name to what reads its config and builds it. docs/adding-a-loss.md
// walks through one.
//
// A loss goes through three stages. Its reader takes the type's own keys from a [[loss]] block; the builder that it
// returns runs once the networks are there, knows their shapes, says which taps it needs and registers trainable parts;
// what that returns runs at every step and gives the unweighted loss, a scalar [1].
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "distill/config_reader.h"
#include "distill/teacher.h"
#include "engine/parameters.h"
#include "models/model.h"

namespace retort {

// What a loss sees at a step.
struct LossInputs {
  const Tensor& labels;  // i32 [B]
  const ForwardMode& mode;
  const ModelOutput& student;
  const TeacherBatch& teachers;
  int teacher = 0;  // the [[loss]] block's `teacher`, from 1; 0: all of them together

  const Tensor& student_tap(const std::string& name) const { return student.taps.at(name); }
  const Tensor& teacher_tap(const std::string& name) const { return teachers.tap(teacher, name); }
  Tensor teacher_logits(double temperature) const { return teachers.logits(teacher, temperature); }
};

using Loss = std::function<Tensor(const LossInputs&)>;

// What a loss is built from, and what it asks for.
struct LossContext {
  std::string where;  // of the [[loss]] block, for errors
  const NetworkShape& student;
  const NetworkShape& teacher;      // the one whose taps the loss sees
  std::int64_t smallest_batch = 0;  // of an epoch: its last one may be smaller
  double label_smoothing = 0;       // [train]
  double base_lr = 0;               // [optimizer]

  ParameterStore& parts;  // for trainable parts, named `prefix` + name
  std::string prefix;

  // To be filled in by the builder.
  TapNames student_taps = {}, teacher_taps = {};
  bool uses_teacher = true;
  std::vector<std::string> notes = {};  // for the run's log

  [[noreturn]] void reject(const std::string& problem) const;  // "<where>: <problem>"
  // For losses about relations within a batch.
  void need_samples(const char* type, std::int64_t at_least) const;
};

// Of a loss's weight, and of those of its parts: their products with losses stay inside f32.
inline Range weight_range() {
  return Range::closed(0, 1e20);
}

using LossBuilder = std::function<Loss(LossContext&)>;
using LossReader = LossBuilder (*)(ConfigSection&);

std::vector<std::string> loss_types();
// Throws Error, naming the nearest known type, where there is none.
LossReader loss_reader(const std::string& type);

// The readers, one a type; each in the file of its family.
LossBuilder read_cross_entropy(ConfigSection& section);
LossBuilder read_soft_targets(ConfigSection& section);
LossBuilder read_logit_mse(ConfigSection& section);
LossBuilder read_soft_cross_entropy(ConfigSection& section);
LossBuilder read_dkd(ConfigSection& section);
LossBuilder read_dist(ConfigSection& section);
LossBuilder read_discriminator(ConfigSection& section);
LossBuilder read_similarity_preserving(ConfigSection& section);
LossBuilder read_attention_transfer(ConfigSection& section);
LossBuilder read_fitnet(ConfigSection& section);
LossBuilder read_feature_cosine(ConfigSection& section);
LossBuilder read_vid(ConfigSection& section);
LossBuilder read_nst(ConfigSection& section);
LossBuilder read_rkd(ConfigSection& section);
LossBuilder read_distance_metric(ConfigSection& section);
LossBuilder read_pkt(ConfigSection& section);
LossBuilder read_cc(ConfigSection& section);

}  // namespace retort
