#include "distill/config_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/augment_config.h"
#include "data/catalog.h"
#include "data/dataset.h"
#include "engine/suggest.h"

namespace retort {
namespace {

AugmentEntry read_augment_entry(const ConfigValue& element, std::size_t number) {
  ConfigValue table = element;
  if (!element.is_table()) table.data = ConfigTable{{"name", element}};
  ConfigSection section(table, fmt::format("[data] augment {}:", number));
  AugmentEntry entry;
  section.read_choice("name", entry.name, augment_names());
  if (entry.name.empty()) section.reject("needs a name");
  for (const auto& [key, value] : table.table()) {
    if (key == "name") continue;
    std::vector<double> values(1);
    const bool listed = std::holds_alternative<ConfigArray>(value.data);
    listed ? section.read(key, values) : section.read(key, values[0]);
    entry.options.emplace(key, std::move(values));
  }
  try {
    check_augment_step({entry.name, entry.options});
  } catch (const AugmentError& e) {
    section.reject(e.parameter, e.problem);
  }
  return entry;
}

void read_augment(ConfigSection& section, std::vector<AugmentEntry>& augment) {
  const ConfigValue* v = section.value("augment");
  if (v == nullptr) return;
  const auto* elements = std::get_if<ConfigArray>(&v->data);
  if (elements == nullptr) section.reject("augment", "expected a list of names or tables");
  augment.clear();
  if (elements->size() > static_cast<std::size_t>(kernels::kMaxAugmentSteps)) {
    section.reject("augment",
                   fmt::format("{} steps, at most {} are possible", elements->size(), kernels::kMaxAugmentSteps));
  }
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

// As people write it: 4, not 4.0.
ConfigValue plain_number(double v) {
  const bool whole = v == std::floor(v) && std::abs(v) < 1e15;
  return whole ? config_value(static_cast<std::int64_t>(v)) : config_value(v);
}

}  // namespace

double AugmentEntry::option(const std::string& key, double fallback, std::size_t index) const {
  const auto it = options.find(key);
  return it == options.end() ? fallback : it->second.at(index);
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
  const KnownSet& set = known_set(c.dataset);
  if (set.built_in()) {
    section.unused("train_files", c.train_files, {}, section.layer("dataset"),
                   fmt::format("{} is made by the program, without files", c.dataset));
  }
  try {
    select_training_files(set, c.train_files);
  } catch (const Error& e) {
    section.reject("train_files", e.what());
  }
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
    for (const auto& [key, values] : entry.options) {
      ConfigArray numbers;
      for (const double v : values) numbers.push_back(plain_number(v));
      table.emplace(key, numbers.size() == 1 ? numbers[0] : config_value(numbers));
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
