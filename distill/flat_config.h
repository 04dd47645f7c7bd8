// A config as a flat list: "optimizer.lr", "loss.0.weight". Leaves go by their path; lists of plain values are leaves.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "distill/config_reader.h"

namespace retort {

using FlatConfig = std::map<std::string, nlohmann::ordered_json>;

FlatConfig flat_config(const ConfigValue& tree);

// A leaf's value; null for a table.
nlohmann::ordered_json plain_value(const ConfigValue& leaf);

}  // namespace retort
