// How the weight of a loss changes with the epoch: a factor on it.
//
// With e the epoch from 0, E all epochs and n the schedule's `epochs`:
//   constant    1
//   warmup      min(1, (e + 1) / n)                         (Zhao et al. 2022 for DKD)
//   until       1 while e < n, then 0                       (a loss that only prepares the student)
//   from        0 while e < n, then 1
//   polynomial  from + (to - from) p^power, p = (e + 1) / E  (recipe R4)
#pragma once

#include <string>
#include <vector>

#include "distill/config_reader.h"

namespace retort {

struct WeightSchedule {
  std::string type = "constant";
  int epochs = 0;
  double from = 1, to = 1, power = 1;

  double factor(int epoch, int all_epochs) const;
  bool operator==(const WeightSchedule&) const = default;
};

// Of the key `schedule`, a table { type = "warmup", epochs = 20 }.
WeightSchedule read_weight_schedule(ConfigSection& section);

}  // namespace retort
