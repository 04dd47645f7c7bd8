#include "engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "kernels/error.h"

namespace retort {

Schedule::Schedule(ScheduleOptions options, std::int64_t steps_per_epoch, std::int64_t total_steps)
    : options_(std::move(options)),
      steps_per_epoch_(steps_per_epoch),
      total_steps_(total_steps),
      warmup_steps_(std::llround(options_.warmup_epochs * static_cast<double>(steps_per_epoch))) {
  check(steps_per_epoch > 0 && total_steps > 0, "schedule: {} steps an epoch, {} in all: nothing to train on",
        steps_per_epoch, total_steps);
  check(std::isfinite(options_.base_lr) && options_.base_lr > 0, "schedule: a learning rate of {}", options_.base_lr);
  check(options_.step_epochs > 0 && options_.t_0 > 0 && options_.t_mult > 0 && warmup_steps_ >= 0,
        "schedule: step_epochs {}, t_0 {}, t_mult {} and warm-up of {} steps must be positive", options_.step_epochs,
        options_.t_0, options_.t_mult, warmup_steps_);
}

double Schedule::cosine(std::int64_t t, std::int64_t length) const {
  const double phase = std::numbers::pi * static_cast<double>(t) / static_cast<double>(length);
  return options_.min_lr + (options_.base_lr - options_.min_lr) * (1 + std::cos(phase)) / 2;
}

double Schedule::lr_at(std::int64_t step) const {
  using Type = ScheduleOptions::Type;
  if (step < warmup_steps_) {
    return options_.base_lr * static_cast<double>(step + 1) / static_cast<double>(warmup_steps_);
  }
  const std::int64_t epoch = step / steps_per_epoch_, since_warmup = step - warmup_steps_;
  switch (options_.type) {
    case Type::constant:
      return options_.base_lr;
    case Type::cosine: {
      const std::int64_t length = std::max<std::int64_t>(1, total_steps_ - warmup_steps_);
      return cosine(std::min(since_warmup, length), length);
    }
    case Type::step:
      return options_.base_lr * std::pow(options_.gamma, static_cast<double>(epoch / options_.step_epochs));
    case Type::milestones: {
      const auto passed = std::upper_bound(options_.milestones.begin(), options_.milestones.end(), epoch);
      return options_.base_lr * std::pow(options_.gamma, static_cast<double>(passed - options_.milestones.begin()));
    }
    case Type::cosine_restarts: {
      std::int64_t length = options_.t_0 * steps_per_epoch_, t = since_warmup;
      if (options_.t_mult == 1) return cosine(t % length, length);
      while (t >= length) {
        t -= length;
        length *= options_.t_mult;
      }
      return cosine(t, length);
    }
  }
  return options_.base_lr;
}

}  // namespace retort
