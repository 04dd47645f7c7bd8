// From the config's words to the engine's options.
#include "distill/config.h"

namespace retort {

OptimizerOptions optimizer_options(const TrainConfig& config) {
  const OptimizerConfig& c = config.optimizer;
  OptimizerOptions o;
  o.rule = c.type == "adam"    ? OptimizerOptions::Rule::adam
           : c.type == "adamw" ? OptimizerOptions::Rule::adamw
                               : OptimizerOptions::Rule::sgd;
  o.weight_decay = c.weight_decay;
  o.decay_all = c.decay == "all";
  o.momentum = c.momentum;
  o.nesterov = c.nesterov;
  o.beta1 = c.beta1;
  o.beta2 = c.beta2;
  o.epsilon = c.epsilon;
  o.clip_grad_norm = config.train.clip_grad_norm;
  return o;
}

ScheduleOptions schedule_options(const TrainConfig& config) {
  const ScheduleConfig& c = config.schedule;
  using Type = ScheduleOptions::Type;
  ScheduleOptions o;
  o.type = c.type == "cosine"            ? Type::cosine
           : c.type == "step"            ? Type::step
           : c.type == "milestones"      ? Type::milestones
           : c.type == "cosine_restarts" ? Type::cosine_restarts
                                         : Type::constant;
  o.base_lr = config.optimizer.lr;
  o.warmup_epochs = c.warmup_epochs;
  if (c.step_epochs > 0) o.step_epochs = c.step_epochs;
  o.gamma = c.gamma;
  o.milestones = c.milestones;
  if (c.t_0 > 0) o.t_0 = c.t_0;
  o.t_mult = c.t_mult;
  o.min_lr = c.min_lr;
  return o;
}

}  // namespace retort
