#include "distill/resume_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace retort {
namespace {

struct KeyRule {
  const char* key;  // with N for the number of a block
  ResumeRule rule;
};

constexpr KeyRule kRules[] = {
    // Where the run lies and what it runs on.
    {"name", ResumeRule::allowed},
    {"output.root", ResumeRule::allowed},
    {"device", ResumeRule::allowed},
    // What is looked at, and when the files are written.
    {"train.evaluate_every", ResumeRule::allowed},
    {"train.evaluate_test", ResumeRule::allowed},
    {"train.early_stop_patience", ResumeRule::allowed},
    {"train.checkpoint_minutes", ResumeRule::allowed},
    {"distill.baseline", ResumeRule::allowed},
    {"distill.gradient_norms_every", ResumeRule::allowed},
    {"distill.teacher_tolerance", ResumeRule::allowed},
    {"student.N.group", ResumeRule::allowed},
    // How long it trains.
    {"train.epochs", ResumeRule::honoured},
    {"train.max_steps", ResumeRule::honoured},
    // Where its images and weights are read.
    {"data.root", ResumeRule::contents},
    {"model.init", ResumeRule::contents},
    {"student.N.model.init", ResumeRule::contents},
    {"teacher.N.path", ResumeRule::contents},
};

// "teacher.0.path" is "teacher.N.path".
std::string without_numbers(const std::string& key) {
  std::string out;
  for (std::size_t begin = 0; begin <= key.size();) {
    const std::size_t end = std::min(key.find('.', begin), key.size());
    const std::string part = key.substr(begin, end - begin);
    const bool number =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return '0' <= c && c <= '9'; });
    if (begin > 0) out += '.';
    out += number ? "N" : part;
    begin = end + 1;
  }
  return out;
}

std::string value_text(const FlatConfig& config, const std::string& key) {
  const auto found = config.find(key);
  if (found == config.end()) return "nothing";
  const nlohmann::ordered_json& value = found->second;
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

ResumeRule resume_rule(const std::string& key) {
  const std::string pattern = without_numbers(key);
  const auto* const rule =
      std::find_if(std::begin(kRules), std::end(kRules), [&](const KeyRule& r) { return pattern == r.key; });
  return rule == std::end(kRules) ? ResumeRule::refused : rule->rule;
}

std::string text_of(const ConfigChange& change) {
  return fmt::format("{}: {}, now {}", change.key, change.before, change.after);
}

std::vector<ConfigChange> config_changes(const FlatConfig& before, const FlatConfig& after) {
  std::set<std::string> keys;
  for (const FlatConfig* config : {&before, &after}) {
    for (const auto& [key, value] : *config) keys.insert(key);
  }
  std::vector<ConfigChange> changes;
  for (const std::string& key : keys) {
    const auto a = before.find(key), b = after.find(key);
    if (a != before.end() && b != after.end() && a->second == b->second) continue;
    changes.push_back({key, value_text(before, key), value_text(after, key)});
  }
  return changes;
}

bool depends_on_length(const FlatConfig& config) {
  // Students have schedules of their own, under the same names.
  return std::any_of(config.begin(), config.end(), [](const auto& entry) {
    return entry.first.ends_with("schedule.type") && (entry.second == "cosine" || entry.second == "polynomial");
  });
}

}  // namespace retort
