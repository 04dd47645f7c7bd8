#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "distill/config_reader.h"
#include "engine/suggest.h"

namespace retort {
namespace {

const char* kind_of(const ConfigValue& value) {
  constexpr const char* kKinds[] = {"a boolean", "an integer", "a number", "a string", "a list", "a table"};
  return kKinds[value.data.index()];
}

// The text of a value that should be a string; null where it is none.
const std::string* string_in(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value.data)) return text;
  return value.typed.empty() ? nullptr : &value.typed;
}

}  // namespace

std::string text_of(const ConfigValue& value) {
  struct Visitor {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{}", v); }
    std::string operator()(const std::string& v) const { return in_quotes(v); }
    std::string operator()(const ConfigArray&) const { return "[...]"; }
    std::string operator()(const ConfigTable&) const { return "{...}"; }
  };
  return std::visit(Visitor{}, value.data);
}

bool Range::contains(double value) const {
  return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
}

std::string Range::text() const {
  constexpr double kLimit = std::numeric_limits<double>::max();
  if (low == -kLimit && high == kLimit) return "a finite number";
  if (high == kLimit) return fmt::format("{} {}", low_open ? "above" : "at least", low);
  if (low == -kLimit) return fmt::format("{} {}", high_open ? "below" : "at most", high);
  return fmt::format("in {}{}, {}{}", low_open ? '(' : '[', low, high, high_open ? ')' : ']');
}

ConfigSection::ConfigSection(const ConfigValue& value, std::string name) : value_(value), name_(std::move(name)) {
  check(value_.is_table(), "{}: {}expected a table, got {}", value_.where, label(), kind_of(value_));
}

std::string ConfigSection::label() const {
  return name_.empty() ? "" : name_ + " ";
}

const ConfigValue* ConfigSection::find(const std::string& key) {
  asked_.insert(key);
  const auto it = value_.table().find(key);
  return it == value_.table().end() ? nullptr : &it->second;
}

bool ConfigSection::has(const std::string& key) {
  return find(key) != nullptr;
}
const ConfigValue* ConfigSection::value(const std::string& key) {
  return find(key);
}

int ConfigSection::layer(const std::string& key) const {
  const auto it = value_.table().find(key);
  return it == value_.table().end() ? kRecordedLayer : it->second.layer;
}

void ConfigSection::wrong_type(const std::string& key, const ConfigValue& found, const char* expected) const {
  const bool plain = !found.is_table() && !std::holds_alternative<ConfigArray>(found.data);
  const char* const hint = plain && std::string_view(expected).ends_with("string") ? "; put quotes around it" : "";
  fail("{}: {}{} = {}: expected {}, got {}{}", found.where, label(), key, text_of(found), expected, kind_of(found),
       hint);
}

void ConfigSection::read(const std::string& key, bool& field) {
  if (const ConfigValue* v = find(key)) {
    const auto* boolean = std::get_if<bool>(&v->data);
    if (boolean == nullptr) wrong_type(key, *v, "true or false");
    field = *boolean;
  }
  resolve(key, config_value(field));
}

void ConfigSection::read(const std::string& key, std::string& field) {
  if (const ConfigValue* v = find(key)) {
    const std::string* const text = string_in(*v);
    if (text == nullptr) wrong_type(key, *v, "a string");
    field = *text;
  }
  resolve(key, config_value(field));
}

double ConfigSection::number(const std::string& key, const ConfigValue& v, const Range& range,
                             const char* expected) const {
  double value = 0;
  if (const auto* real = std::get_if<double>(&v.data)) {
    value = *real;
  } else if (const auto* whole = std::get_if<std::int64_t>(&v.data)) {
    value = static_cast<double>(*whole);
  } else {
    wrong_type(key, v, expected);
  }
  check(range.contains(value), "{}: {}{} = {}: must be {}", v.where, label(), key, text_of(v), range.text());
  return value;
}

std::int64_t ConfigSection::integer(const std::string& key, const ConfigValue& v, const Range& range) const {
  const auto* whole = std::get_if<std::int64_t>(&v.data);
  if (whole == nullptr) wrong_type(key, v, "an integer");
  check(range.contains(static_cast<double>(*whole)), "{}: {}{} = {}: must be {}", v.where, label(), key, *whole,
        range.text());
  return *whole;
}

int ConfigSection::small_integer(const std::string& key, const ConfigValue& v, const Range& range) const {
  const std::int64_t wide = integer(key, v, range);
  check(std::in_range<int>(wide), "{}: {}{} = {}: too large", v.where, label(), key, wide);
  return static_cast<int>(wide);
}

void ConfigSection::read(const std::string& key, double& field, const Range& range) {
  if (const ConfigValue* v = find(key)) field = number(key, *v, range, "a number");
  resolve(key, config_value(field));
}

void ConfigSection::read(const std::string& key, std::int64_t& field, const Range& range) {
  if (const ConfigValue* v = find(key)) field = integer(key, *v, range);
  resolve(key, config_value(field));
}

void ConfigSection::read(const std::string& key, int& field, const Range& range) {
  if (const ConfigValue* v = find(key)) field = small_integer(key, *v, range);
  resolve(key, config_value(field));
}

void ConfigSection::read(const std::string& key, std::uint64_t& field) {
  if (const ConfigValue* v = find(key)) field = static_cast<std::uint64_t>(integer(key, *v, Range::at_least(0)));
  resolve(key, config_value(field));
}

const ConfigArray* ConfigSection::array(const std::string& key, const char* expected) {
  const ConfigValue* v = find(key);
  if (v == nullptr) return nullptr;
  const auto* elements = std::get_if<ConfigArray>(&v->data);
  if (elements == nullptr) wrong_type(key, *v, expected);
  return elements;
}

template <typename T, typename Convert>
void ConfigSection::read_list(const std::string& key, const char* expected, std::vector<T>& field, Convert convert) {
  if (const ConfigArray* elements = array(key, expected)) {
    field.clear();
    for (const ConfigValue& element : *elements) field.push_back(convert(element));
  }
  resolve(key, config_list(field));
}

void ConfigSection::read(const std::string& key, std::vector<std::string>& field) {
  constexpr const char* kExpected = "a list of strings";
  read_list(key, kExpected, field, [&](const ConfigValue& element) {
    const auto* text = std::get_if<std::string>(&element.data);
    if (text == nullptr) wrong_type(key, element, kExpected);
    return *text;
  });
}

void ConfigSection::read(const std::string& key, std::vector<int>& field, const Range& range) {
  read_list(key, "a list of integers", field, [&](const ConfigValue& v) { return small_integer(key, v, range); });
}

void ConfigSection::read(const std::string& key, std::vector<std::int64_t>& field, const Range& range) {
  read_list(key, "a list of integers", field, [&](const ConfigValue& v) { return integer(key, v, range); });
}

void ConfigSection::read(const std::string& key, std::vector<double>& field, const Range& range) {
  constexpr const char* kExpected = "a list of numbers";
  read_list(key, kExpected, field, [&](const ConfigValue& v) { return number(key, v, range, kExpected); });
}

void ConfigSection::read_choice(const std::string& key, std::string& field, const std::vector<std::string>& choices) {
  std::string chosen = field;
  read(key, chosen);
  if (has(key) && std::find(choices.begin(), choices.end(), chosen) == choices.end()) {
    const std::string hint = did_you_mean(chosen, choices);
    reject(key, hint.empty() ? fmt::format("unknown; known are {}", fmt::join(choices, ", ")) : "unknown" + hint);
  }
  field = chosen;
}

ConfigSection ConfigSection::section(const std::string& key) {
  const std::string inner =
      name_.empty() ? fmt::format("[{}]", key) : fmt::format("{}.{}]", name_.substr(0, name_.size() - 1), key);
  if (const ConfigValue* v = find(key)) return ConfigSection(*v, inner);
  ConfigValue empty;
  empty.data = ConfigTable{};
  empty.where = value_.where;
  return ConfigSection(empty, inner);
}

std::vector<ConfigSection> ConfigSection::sections(const std::string& key) {
  std::vector<ConfigSection> out;
  const ConfigArray* elements = array(key, "a list of tables");
  if (elements == nullptr) return out;
  for (std::size_t i = 0; i < elements->size(); ++i) {
    out.emplace_back((*elements)[i], fmt::format("[[{}]] {}", key, i + 1));
  }
  return out;
}

void ConfigSection::reject(const std::string& key, const std::string& problem) const {
  const auto it = value_.table().find(key);
  if (it == value_.table().end()) fail("{}: {}{}: {}", value_.where, label(), key, problem);
  fail("{}: {}{} = {}: {}", it->second.where, label(), key, text_of(it->second), problem);
}

void ConfigSection::reject(const std::string& problem) const {
  fail("{}: {}{}", value_.where, label(), problem);
}

void ConfigSection::finish() const {
  const ConfigValue* first = nullptr;
  std::string unknown;
  for (const auto& [key, value] : value_.table()) {
    if (asked_.contains(key) || (first != nullptr && first->line <= value.line)) continue;
    first = &value;
    unknown = key;
  }
  if (first == nullptr) return;
  const std::vector<std::string> known(asked_.begin(), asked_.end());
  std::string hint = did_you_mean(unknown, known);
  if (hint.empty()) hint = fmt::format("; known are {}", fmt::join(known, ", "));
  fail("{}: {}unknown {} {}{}", first->where, label(), first->is_table() ? "section" : "key", in_quotes(unknown), hint);
}

}  // namespace retort
