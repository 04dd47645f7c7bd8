// A network in training with all that belongs to it: objective, optimizers, schedule, its place in the epoch's sums,
// and its folder. A training run has one, a distillation as many as it has students.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "distill/config.h"
#include "distill/objective.h"
#include "distill/run_directory.h"
#include "distill/session.h"
#include "engine/optimizer.h"
#include "engine/schedule.h"

namespace retort {

struct LearnerState {
  // Sums over the running epoch.
  double loss_sum = 0;  // of loss times samples
  std::int64_t samples = 0;
  std::array<double, 4> metrics{};  // as accumulate_metrics keeps them

  double best_top1 = -1;        // on the validation split
  int best_epoch = -1;          // from 0
  std::int64_t best_step = -1;  // steps done then; -1: none, or known to an earlier version
};

struct Learner {
  // Takes over a network that has its first weights. `config` is the learner's own; `name` is "" for the only one.
  Learner(std::string name, std::string group, TrainConfig config, std::unique_ptr<Model> model,
          std::unique_ptr<Objective> objective, const Session& session);

  std::vector<Optimizer*> optimizers() const;  // of the network, and of the losses' parts where there are any
  // Before the first step: where its files go. A folder of its own below the run's where there are several learners.
  void open_folder(const RunDirectory& run);
  std::string file(const std::string& file_name) const { return folder + "/" + file_name; }
  // What stands before the names of its arrays in the run's state.
  std::string state_prefix() const { return name.empty() ? "" : name + "/"; }

  std::string name, group;
  TrainConfig config;
  std::unique_ptr<Model> model;
  std::unique_ptr<Objective> objective;
  std::unique_ptr<Optimizer> optimizer, parts_optimizer;  // the latter null where there are no parts
  Schedule schedule;
  LearnerState state;
  std::string folder;
  std::unique_ptr<MetricsLog> log;
};

// Batches of an epoch, and steps of a run.
std::int64_t steps_per_epoch(const TrainConfig& config, const Session& session);
std::int64_t total_steps(const TrainConfig& config, const Session& session);

// Weights from [model] init, frozen parameters: what comes before a network can train. `teacher_files` are the
// checkpoints that init = "teacher" may name. Returns a line for the log, "" where there is nothing to say.
std::string initialize_network(Model& model, const TrainConfig& config,
                               const std::vector<std::string>& teacher_files = {});

}  // namespace retort
