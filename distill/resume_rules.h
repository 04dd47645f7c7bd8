// What of its config a run may change when it goes on. A run's state belongs to the config that trained it: a key that
// is not in the table below is refused, and so is one that nobody has thought about. docs/runs.md has the same table
// in words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "distill/flat_config.h"

namespace retort {

enum class ResumeRule : std::uint8_t {
  refused,   // the steps to come would be another run's
  allowed,   // does not touch the training; the log says that it changed
  honoured,  // the run's length: more or fewer steps of the same training
  contents,  // where something is read: may be another place that holds the same
};

// Of a key of the resolved config, "teacher.0.path".
ResumeRule resume_rule(const std::string& key);

struct ConfigChange {
  std::string key, before, after;  // values as errors show them; "nothing" where the key is not there
};

// "optimizer.lr: 0.2, now 0.1"
std::string text_of(const ConfigChange& change);

// All keys whose values differ, by name.
std::vector<ConfigChange> config_changes(const FlatConfig& before, const FlatConfig& after);

// Whether the run's length takes part in steps before the last: a cosine, the weight of a loss that follows it.
bool depends_on_length(const FlatConfig& config);

}  // namespace retort
