#include "distill/weight_schedule.h"

#include <algorithm>
#include <cmath>

namespace retort {

double WeightSchedule::factor(int epoch, int all_epochs) const {
  if (type == "warmup") return std::min(1.0, static_cast<double>(epoch + 1) / epochs);
  if (type == "until") return epoch < epochs ? 1 : 0;
  if (type == "from") return epoch < epochs ? 0 : 1;
  if (type == "polynomial") {
    return from + (to - from) * std::pow(static_cast<double>(epoch + 1) / std::max(1, all_epochs), power);
  }
  return 1;
}

WeightSchedule read_weight_schedule(ConfigSection& section) {
  WeightSchedule s;
  if (!section.has("schedule")) return s;
  ConfigSection inner = section.section("schedule");
  inner.read_choice("type", s.type, {"constant", "warmup", "until", "from", "polynomial"});
  const bool counts = s.type == "warmup" || s.type == "until" || s.type == "from";
  if (counts) {
    inner.read("epochs", s.epochs, Range::at_least(1));
    if (s.epochs < 1) inner.reject("type", "needs epochs");
  } else if (s.type == "polynomial") {
    s.from = 0;
    inner.read("from", s.from, Range::closed(0, 1e6));
    inner.read("to", s.to, Range::closed(0, 1e6));
    inner.read("power", s.power, Range::above(0));
  }
  inner.finish();
  section.resolve("schedule", config_value(inner.resolved()));
  return s;
}

}  // namespace retort
