// The config of a distillation: that of a training run and, on top of it,
//   [[teacher]]   the frozen networks                         (distill/teacher.h)
//   [[loss]]      the terms of the loss, each with a weight    (distill/losses/)
//   [distill]     how teachers are combined, what is compared and logged
//   [[student]]   several students in one run: each its own model, optimizer, schedule, seed or losses on top of the
//   rest
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "distill/config.h"
#include "distill/losses/loss.h"
#include "distill/teacher.h"
#include "distill/weight_schedule.h"

namespace retort {

struct LossConfig {
  std::string where;  // for errors
  std::string type;
  double weight = 1;
  WeightSchedule schedule;
  int teacher = 0;  // from 1; 0: all of them together
  LossBuilder build;
};

struct StudentConfig {
  std::string name;   // of its folder in the run; "" for the only one
  std::string group;  // students that differ only in the seed share it
  TrainConfig train;
  std::vector<LossConfig> losses;
};

inline constexpr double kTeacherTolerance = 0.05;

struct DistillConfig {
  TrainConfig run;  // what all students share; the only student's where there is one
  std::vector<TeacherConfig> teachers;
  Combine combine = Combine::mean_softmax;
  std::string baseline;          // a run or version to compare with; "": looked for; "none": no comparison
  int gradient_norms_every = 0;  // steps between two measurements of what each term contributes; 0: never
  // By so much the teacher may fall short of the accuracy that is expected of it, a fraction; where nothing is said,
  // kTeacherTolerance of a recorded one.
  std::optional<double> teacher_tolerance;
  std::vector<StudentConfig> students;
  std::string resolved;  // everything as TOML, defaults included: what the run's config.cfg holds
};

// Throws Error, one line with file and line number, for anything unknown, mistyped or impossible.
DistillConfig load_distill_config(const std::string& path, const std::vector<std::string>& overrides = {});
DistillConfig distill_config_of(const ConfigValue& tree, const std::string& default_name);

}  // namespace retort
