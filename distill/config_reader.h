// Reading configs: a TOML file with its `extends` chain and `--set` overrides becomes one tree of values that know
// where they were written, and ConfigSection reads a table of it into typed fields.
//
// Every error is one line: the place, the section, what was found and what was expected, as in
//   teacher.cfg:12: [optimizer] unknown key "momentun"; did you mean "momentum"?
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "kernels/error.h"

namespace retort {

struct ConfigValue;
using ConfigTable = std::map<std::string, ConfigValue>;
using ConfigArray = std::vector<ConfigValue>;

struct ConfigValue {
  std::variant<bool, std::int64_t, double, std::string, ConfigArray, ConfigTable> data = false;
  std::string where;  // "teacher.cfg:12" or "--set optimizer.lr"
  int line = 0;       // 0 where there is none
  // Of --set: the value as it was typed, which is what a key that wants a string takes: `--set name=42` is a name.
  std::string typed;
  // What lies on top of what: 0 is the file that was asked for, what it extends lies below, --set above.
  int layer = 0;

  bool is_table() const { return std::holds_alternative<ConfigTable>(data); }
  const ConfigTable& table() const { return std::get<ConfigTable>(data); }
  ConfigTable& table() { return std::get<ConfigTable>(data); }
};

// Reads `path`, beneath it what it extends (relative to the file; tables are merged key by key, everything else is
// replaced), and on top each override "a.b=value". The value is TOML; what is not TOML counts as a plain string, so
// that `--set model.arch=resnet20` needs no quotes; where a string is wanted, so does everything without quotes
// (`--set name=1e3`). A number steps into a list: `--set loss.0.weight=2`.
ConfigValue load_config_tree(const std::string& path, const std::vector<std::string>& overrides = {});

// The same from text; `name` stands for the file in errors. `extends` is relative to the working directory.
ConfigValue parse_config_tree(const std::string& text, const std::string& name);

// The layer of a run's own record, the config.cfg beside its run.json: ConfigSection::unused() takes it as it is.
constexpr int kRecordedLayer = std::numeric_limits<int>::min();
// Moves a value and all within it up; a record stays one.
void shift_layers(ConfigValue& value, int by);

// The tree as TOML that reads back to the same values.
std::string to_toml(const ConfigTable& table);

// The value as it stands in errors; lists and tables by kind only.
std::string text_of(const ConfigValue& value);

// Puts `over` on top of `base`: tables are merged key by key, everything else is replaced.
void merge_tables(ConfigTable& base, const ConfigTable& over);

template <typename T>
ConfigValue config_value(T value) {
  ConfigValue out;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    out.data = static_cast<std::int64_t>(value);
  } else {
    out.data = std::move(value);
  }
  return out;
}

template <typename T>
ConfigValue config_list(const std::vector<T>& values) {
  ConfigArray out;
  for (const T& value : values) out.push_back(config_value(value));
  return config_value(std::move(out));
}

// An interval that numbers must lie in; NaN lies in none, infinity only where a bound says so.
struct Range {
  double low = -std::numeric_limits<double>::max();
  double high = std::numeric_limits<double>::max();
  bool low_open = false;
  bool high_open = false;

  static Range at_least(double low) { return {.low = low}; }
  static Range above(double low) { return {.low = low, .low_open = true}; }
  static Range closed(double low, double high) { return {.low = low, .high = high}; }
  static Range half_open(double low, double high) { return {.low = low, .high = high, .high_open = true}; }
  static Range positive_fraction() { return {.low = 0, .high = 1, .low_open = true}; }
  bool contains(double value) const;
  std::string text() const;  // "in [0, 1)", "at least 1"
};

// One table of a config. read() leaves the field as it is where the key is absent. finish() then refuses keys that
// nothing has asked for; a section not finished has its unknown keys ignored, so do not forget it.
class ConfigSection {
 public:
  // `name` as it stands in errors: "[optimizer]", "[[loss]] 2", "" for the top level.
  ConfigSection(const ConfigValue& value, std::string name);

  bool has(const std::string& key);
  void read(const std::string& key, bool& field);
  void read(const std::string& key, std::string& field);
  void read(const std::string& key, double& field, const Range& range = {});
  void read(const std::string& key, int& field, const Range& range = {});
  void read(const std::string& key, std::int64_t& field, const Range& range = {});
  void read(const std::string& key, std::uint64_t& field);  // 0 .. 2^63 - 1, TOML's integers
  void read(const std::string& key, std::vector<std::string>& field);
  void read(const std::string& key, std::vector<int>& field, const Range& range = {});
  void read(const std::string& key, std::vector<std::int64_t>& field, const Range& range = {});
  void read(const std::string& key, std::vector<double>& field, const Range& range = {});
  // A string that must be one of `choices`.
  void read_choice(const std::string& key, std::string& field, const std::vector<std::string>& choices);

  // [key]; an empty section where it is absent.
  ConfigSection section(const std::string& key);
  // [[key]], in order; empty where absent.
  std::vector<ConfigSection> sections(const std::string& key);
  // The value itself, for what fits none of the above; null where absent.
  const ConfigValue* value(const std::string& key);

  // For a `field` that nothing reads because of what `cause` (the layer of another key) says. Where the key was written
  // in the same place as that or above it, it is a mistake: Error "has no effect: <why>". One that was inherited, from
  // a base by a file or from a file by --set, is taken back to `fallback`.
  template <typename T>
  void unused(const std::string& key, T& field, const std::type_identity_t<T>& fallback, int cause,
              const std::string& why) {
    if (field == fallback) return;
    if (layer(key) != kRecordedLayer && layer(key) >= cause) reject(key, "has no effect: " + why);
    field = fallback;
  }
  // Of the key's value; below all others where it is not given.
  int layer(const std::string& key) const;

  // Throws Error "<place>: <section> <key> = <value>: <problem>".
  [[noreturn]] void reject(const std::string& key, const std::string& problem) const;
  // Throws Error "<place>: <section> <problem>" about the section as a whole.
  [[noreturn]] void reject(const std::string& problem) const;
  void finish() const;

  // The keys that were read so far with the values that hold, defaults included: what a run's record says.
  const ConfigTable& resolved() const { return resolved_; }
  // Adds a part that was not read by read(): a section's resolved() table.
  void resolve(const std::string& key, ConfigValue value) { resolved_.insert_or_assign(key, std::move(value)); }

  const std::string& where() const { return value_.where; }
  const ConfigValue& tree() const { return value_; }

 private:
  const ConfigValue* find(const std::string& key);
  [[noreturn]] void wrong_type(const std::string& key, const ConfigValue& found, const char* expected) const;
  double number(const std::string& key, const ConfigValue& v, const Range& range, const char* expected) const;
  std::int64_t integer(const std::string& key, const ConfigValue& v, const Range& range) const;
  int small_integer(const std::string& key, const ConfigValue& v, const Range& range) const;
  template <typename T, typename Convert>
  void read_list(const std::string& key, const char* expected, std::vector<T>& field, Convert convert);
  const ConfigArray* array(const std::string& key, const char* expected);
  std::string label() const;  // "[optimizer] " or ""

  ConfigValue value_;
  std::string name_;
  std::set<std::string> asked_;
  ConfigTable resolved_;
};

}  // namespace retort
