#include "distill/config_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/augment_config.h"
#include "engine/suggest.h"

namespace retort {
namespace {

// What data/augment_config.h understands, with what its values may be, so that a mistake is reported with its line.
struct AugmentOption {
  std::string name;
  Range range;
  enum class Form { number, whole, number_or_pair, whole_or_pair, pair } form = Form::number;
};

struct AugmentRule {
  std::string name;
  std::vector<AugmentOption> options;
};

const std::vector<AugmentRule>& augment_rules() {
  using Form = AugmentOption::Form;
  static const std::vector<AugmentRule> rules = [] {
    const AugmentOption p{"p", Range::closed(0, 1)};
    const AugmentOption size{"size", Range::at_least(0), Form::whole_or_pair};
    return std::vector<AugmentRule>{
        {"flip", {p}},
        {"vertical_flip", {p}},
        {"crop", {{"padding", Range::at_least(0), Form::whole}, size}},
        {"color_jitter",
         {{"brightness", Range::at_least(0), Form::number_or_pair},
          {"contrast", Range::at_least(0), Form::number_or_pair},
          {"saturation", Range::at_least(0), Form::number_or_pair},
          {"hue", Range::closed(-0.5, 0.5), Form::number_or_pair}}},
        {"rotation", {{"degrees", Range::closed(-180, 180), Form::number_or_pair}}},
        {"resized_crop",
         {{"scale", Range::positive_fraction(), Form::pair}, {"ratio", Range::above(0), Form::pair}, size}},
    };
  }();
  return rules;
}

const AugmentRule& rule_of(const std::string& name) {
  const auto& rules = augment_rules();
  const auto it = std::find_if(rules.begin(), rules.end(), [&](const AugmentRule& r) { return r.name == name; });
  check(it != rules.end(), "augment: unknown \"{}\"{}", name, did_you_mean(name, augment_names()));
  return *it;
}

std::vector<double> read_augment_option(ConfigSection& section, const AugmentOption& option, const ConfigValue& v) {
  using Form = AugmentOption::Form;
  const bool whole = option.form == Form::whole || option.form == Form::whole_or_pair;
  const bool listed = std::holds_alternative<ConfigArray>(v.data);
  if (listed && (option.form == Form::number || option.form == Form::whole)) {
    section.reject(option.name, "expected one number");
  }
  std::vector<double> values(1);
  std::vector<int> wholes(1);
  if (listed || option.form == Form::pair) {
    whole ? section.read(option.name, wholes, option.range) : section.read(option.name, values, option.range);
    if ((whole ? wholes.size() : values.size()) != 2) section.reject(option.name, "expected two numbers");
  } else {
    whole ? section.read(option.name, wholes[0], option.range) : section.read(option.name, values[0], option.range);
  }
  if (whole) values.assign(wholes.begin(), wholes.end());
  if (!whole && values.size() == 2 && values[0] > values[1])
    section.reject(option.name, "the smaller number comes first");
  return values;
}

AugmentEntry read_augment_entry(const ConfigValue& element, std::size_t number) {
  ConfigValue table = element;
  if (!element.is_table()) table.data = ConfigTable{{"name", element}};
  ConfigSection section(table, fmt::format("[data] augment {}:", number));
  AugmentEntry entry;
  section.read_choice("name", entry.name, augment_names());
  if (entry.name.empty()) section.reject("needs a name");
  for (const AugmentOption& option : rule_of(entry.name).options) {
    if (const ConfigValue* v = section.value(option.name)) {
      entry.options.emplace(option.name, read_augment_option(section, option, *v));
    }
  }
  section.finish();
  return entry;
}

void read_augment(ConfigSection& section, std::vector<AugmentEntry>& augment) {
  const ConfigValue* v = section.value("augment");
  if (v == nullptr) return;
  const auto* elements = std::get_if<ConfigArray>(&v->data);
  if (elements == nullptr) section.reject("augment", "expected a list of names or tables");
  augment.clear();
  for (const ConfigValue& element : *elements) augment.push_back(read_augment_entry(element, augment.size() + 1));
}

void read_normalize(ConfigSection& section, NormalizeConfig& normalize) {
  const ConfigValue* v = section.value("normalize");
  if (v != nullptr && v->is_table()) {
    ConfigSection inner = section.section("normalize");
    const auto read = [&](const char* key, std::array<double, 3>& field, const Range& range) {
      std::vector<double> values;
      inner.read(key, values, range);
      if (values.size() != 3) inner.reject(key, "expected three numbers");
      std::copy(values.begin(), values.end(), field.begin());
    };
    normalize.preset.clear();
    read("mean", normalize.mean, {});
    read("std", normalize.std, Range::above(0));
    inner.finish();
    return;
  }
  section.read_choice("normalize", normalize.preset, normalization_names());
  const Normalization preset = normalization_preset(normalize.preset);
  std::copy_n(preset.mean, 3, normalize.mean.begin());
  std::copy_n(preset.std, 3, normalize.std.begin());
}

}  // namespace

double AugmentEntry::option(const std::string& key, double fallback, std::size_t index) const {
  const auto it = options.find(key);
  return it == options.end() ? fallback : it->second.at(index);
}

std::vector<std::string> augment_names() {
  std::vector<std::string> names;
  for (const AugmentRule& rule : augment_rules()) names.push_back(rule.name);
  return names;
}

DataConfig read_data_config(ConfigSection section) {
  DataConfig c;
  section.read_choice("dataset", c.dataset, {"cifar10", "cifar100", "shapes"});
  section.read("root", c.root);
  section.read("validation", c.validation, Range::at_least(0));
  if (c.validation >= 1 && c.validation != std::floor(c.validation)) {
    section.reject("validation", "expected a fraction below 1 or a whole number of images");
  }
  section.read("train_files", c.train_files);
  section.read("fraction", c.fraction, Range::positive_fraction());
  section.read("shuffle", c.shuffle);
  section.read("batch_size", c.batch_size, Range::at_least(1));
  read_augment(section, c.augment);
  read_normalize(section, c.normalize);
  section.finish();
  return c;
}

ConfigTable to_table(const DataConfig& c) {
  ConfigArray augment;
  for (const AugmentEntry& entry : c.augment) {
    ConfigTable table{{"name", config_value(entry.name)}};
    for (const AugmentOption& option : rule_of(entry.name).options) {
      const auto it = entry.options.find(option.name);
      if (it == entry.options.end()) continue;
      const bool whole = option.form == AugmentOption::Form::whole || option.form == AugmentOption::Form::whole_or_pair;
      ConfigArray numbers;
      for (const double v : it->second) {
        numbers.push_back(whole ? config_value(static_cast<std::int64_t>(v)) : config_value(v));
      }
      table.emplace(option.name, numbers.size() == 1 ? numbers[0] : config_value(numbers));
    }
    augment.push_back(config_value(std::move(table)));
  }
  ConfigTable out{{"dataset", config_value(c.dataset)},       {"root", config_value(c.root)},
                  {"validation", config_value(c.validation)}, {"train_files", config_list(c.train_files)},
                  {"fraction", config_value(c.fraction)},     {"shuffle", config_value(c.shuffle)},
                  {"batch_size", config_value(c.batch_size)}, {"augment", config_value(std::move(augment))}};
  if (c.normalize.preset.empty()) {
    const auto numbers = [](const std::array<double, 3>& v) {
      return config_value(ConfigArray{config_value(v[0]), config_value(v[1]), config_value(v[2])});
    };
    out.emplace("normalize",
                config_value(ConfigTable{{"mean", numbers(c.normalize.mean)}, {"std", numbers(c.normalize.std)}}));
  } else {
    out.emplace("normalize", config_value(c.normalize.preset));
  }
  return out;
}

}  // namespace retort
