// Learning rate schedules: a pure function of the step, so that a resumed run needs nothing but its step number.
//
// With s the step from 0, E the steps an epoch, N all steps, W = round(warmup_epochs E) and b the base rate:
//   warm-up (any type)  b (s + 1) / W while s < W                                     (Goyal et al. 2017)
//   constant            b
//   cosine              m + (b - m) (1 + cos(pi (s - W) / (N - W))) / 2               (Loshchilov & Hutter 2017)
//   step                b gamma^floor(e / step_epochs), e = floor(s / E)              (PyTorch's StepLR)
//   milestones          b gamma^(number of milestones <= e)                           (PyTorch's MultiStepLR)
//   cosine_restarts     m + (b - m) (1 + cos(pi t / L)) / 2, t steps into a cycle of L; cycles begin at W and last
//                       t_0, t_0 t_mult, t_0 t_mult^2, ... epochs                     (CosineAnnealingWarmRestarts)
#pragma once

#include <cstdint>
#include <vector>

namespace retort {

struct ScheduleOptions {
  enum class Type : std::uint8_t { constant, cosine, step, milestones, cosine_restarts };
  Type type = Type::constant;
  double base_lr = 0.1;
  double warmup_epochs = 0;
  int step_epochs = 1;
  double gamma = 0.1;
  std::vector<int> milestones;  // epochs, ascending
  int t_0 = 1, t_mult = 1;      // epochs
  double min_lr = 0;            // m: cosine, cosine_restarts
};

class Schedule {
 public:
  // Throws Error unless there is a step to take and the options make sense.
  Schedule(ScheduleOptions options, std::int64_t steps_per_epoch, std::int64_t total_steps);

  double lr_at(std::int64_t step) const;  // step from 0; from total_steps() on, cosine stays at its end
  std::int64_t total_steps() const { return total_steps_; }

 private:
  double cosine(std::int64_t t, std::int64_t length) const;

  ScheduleOptions options_;
  std::int64_t steps_per_epoch_, total_steps_, warmup_steps_;
};

}  // namespace retort
