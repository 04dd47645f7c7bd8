// The tree behind a config: TOML, `extends`, overrides, and back to TOML.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "distill/config_reader.h"
#include "engine/suggest.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

ConfigValue convert(const toml::node& node, const std::string& file, const std::string& fixed_where) {
  ConfigValue out;
  out.line = static_cast<int>(node.source().begin.line);
  out.where = fixed_where.empty() ? fmt::format("{}:{}", file, out.line) : fixed_where;
  if (const auto* table = node.as_table()) {
    ConfigTable children;
    for (auto&& [key, child] : *table) {
      ConfigValue value = convert(child, file, fixed_where);
      if (!value.is_table() && fixed_where.empty()) {  // a list may begin below its key
        value.line = static_cast<int>(key.source().begin.line);
        value.where = fmt::format("{}:{}", file, value.line);
      }
      children.emplace(std::string(key.str()), std::move(value));
    }
    out.data = std::move(children);
  } else if (const auto* array = node.as_array()) {
    ConfigArray elements;
    for (const toml::node& child : *array) elements.push_back(convert(child, file, fixed_where));
    out.data = std::move(elements);
  } else if (const auto* text = node.as_string()) {
    out.data = text->get();
  } else if (const auto* integer = node.as_integer()) {
    out.data = integer->get();
  } else if (const auto* real = node.as_floating_point()) {
    out.data = real->get();
  } else if (const auto* boolean = node.as_boolean()) {
    out.data = boolean->get();
  } else {
    fail("{}: dates and times have no meaning here; put the value in quotes", out.where);
  }
  return out;
}

ConfigValue parse(const std::string& text, const std::string& name) {
  try {
    ConfigValue tree = convert(toml::parse(text, name), name, "");
    tree.where = name;
    return tree;
  } catch (const toml::parse_error& e) {
    std::string why(e.description());
    std::replace(why.begin(), why.end(), '\n', ' ');
    fail("{}:{}: not valid TOML: {}", name, e.source().begin.line, why);
  }
}

std::string read_text(const fs::path& path, const std::string& asked_by) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  check(fs::exists(status), "{}: no such file{}", path.string(), asked_by);
  check(!fs::is_directory(status), "{}: is a folder, expected a config file{}", path.string(), asked_by);
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), "{}: cannot be opened: {}{}", path.string(), std::strerror(errno), asked_by);
  std::ostringstream text;
  text << in.rdbuf();
  check(!in.bad(), "{}: cannot be read{}", path.string(), asked_by);
  return text.str();
}

ConfigValue resolve_extends(ConfigValue tree, const fs::path& folder, std::vector<fs::path>& chain);

ConfigValue load(const fs::path& path, const std::string& asked_by, std::vector<fs::path>& chain) {
  const std::string text = read_text(path, asked_by);
  const fs::path canonical = fs::canonical(path);
  check(std::find(chain.begin(), chain.end(), canonical) == chain.end(), "{}: extends itself, by way of {} file(s){}",
        path.string(), chain.size(), asked_by);
  ConfigValue tree = parse(text, path.string());
  const bool record = path.filename() == "config.cfg" && fs::exists(path.parent_path() / "run.json");
  shift_layers(tree, record ? kRecordedLayer : -static_cast<int>(chain.size()));
  chain.push_back(canonical);
  return resolve_extends(std::move(tree), path.parent_path(), chain);
}

ConfigValue resolve_extends(ConfigValue tree, const fs::path& folder, std::vector<fs::path>& chain) {
  const auto it = tree.table().find("extends");
  if (it == tree.table().end()) return tree;
  const auto* target = std::get_if<std::string>(&it->second.data);
  check(target != nullptr, "{}: extends: expected the name of a file", it->second.where);
  ConfigValue base = load(folder / *target, fmt::format(", which {} extends", it->second.where), chain);
  tree.table().erase(it);
  base.where = tree.where;
  merge_tables(base.table(), tree.table());
  return base;
}

ConfigValue parse_override_value(const std::string& text, const std::string& where) {
  try {
    const toml::table table = toml::parse("value = " + text);
    const toml::node* node = table.get("value");
    // A line break could smuggle in a second key; a date is more likely a name such as 2024-01-01.
    if (table.size() == 1 && node != nullptr && !node->is_date() && !node->is_time() && !node->is_date_time()) {
      return convert(*node, "", where);
    }
  } catch (const toml::parse_error&) {
    // Not TOML: a bare word.
  }
  ConfigValue word;
  word.data = text;
  word.where = where;
  return word;
}

constexpr int kOverrideLayer = 1;

std::optional<std::size_t> index_of(const std::string& text) {
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return index;
}

void apply_override(ConfigValue& tree, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  check(equals != std::string::npos && equals > 0, "--set {}: expected section.key=value", assignment);
  const std::string path = assignment.substr(0, equals);
  const std::string where = "--set " + path;
  check(path != "extends", "{}: extends can only be given in a file", where);
  ConfigValue* node = &tree;
  std::size_t begin = 0;
  while (true) {
    const std::size_t dot = path.find('.', begin);
    const std::string part = path.substr(begin, dot == std::string::npos ? dot : dot - begin);
    check(!part.empty(), "{}: empty key", where);
    if (auto* list = std::get_if<ConfigArray>(&node->data)) {
      const auto index = index_of(part);
      check(index.has_value() && *index < list->size(), "{}: \"{}\" is not one of the {} entries, numbered from 0",
            where, part, list->size());
      node = &(*list)[*index];
    } else {
      check(node->is_table(), "{}: \"{}\" lies below a plain value", where, part);
      const auto [it, fresh] = node->table().try_emplace(part);
      node = &it->second;
      if (fresh) {
        node->data = ConfigTable{};
        node->where = where;
        node->layer = kOverrideLayer;
      }
    }
    if (dot == std::string::npos) break;
    begin = dot + 1;
  }
  *node = parse_override_value(assignment.substr(equals + 1), where);
  node->typed = assignment.substr(equals + 1);
  shift_layers(*node, kOverrideLayer);
}

toml::array to_toml_array(const ConfigArray& values);
toml::table to_toml_table(const ConfigTable& values);

// Calls `insert` with the value as the type that toml++ stores.
template <typename Insert>
void visit_as_toml(const ConfigValue& value, Insert&& insert) {
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, ConfigArray>) {
          insert(to_toml_array(v));
        } else if constexpr (std::is_same_v<T, ConfigTable>) {
          insert(to_toml_table(v));
        } else {
          insert(v);
        }
      },
      value.data);
}

toml::array to_toml_array(const ConfigArray& values) {
  toml::array out;
  for (const ConfigValue& value : values) visit_as_toml(value, [&](auto&& v) { out.push_back(v); });
  return out;
}

toml::table to_toml_table(const ConfigTable& values) {
  toml::table out;
  for (const auto& [key, value] : values) visit_as_toml(value, [&, &k = key](auto&& v) { out.insert(k, v); });
  return out;
}

}  // namespace

void shift_layers(ConfigValue& value, int by) {
  if (value.layer != kRecordedLayer) value.layer += by;
  if (value.is_table()) {
    for (auto& [key, child] : value.table()) shift_layers(child, by);
  } else if (auto* const elements = std::get_if<ConfigArray>(&value.data)) {
    for (ConfigValue& element : *elements) shift_layers(element, by);
  }
}

void merge_tables(ConfigTable& base, const ConfigTable& over) {
  for (const auto& [key, value] : over) {
    const auto it = base.find(key);
    if (it != base.end() && it->second.is_table() && value.is_table()) {
      it->second.where = value.where;
      it->second.line = value.line;
      it->second.layer = value.layer;
      merge_tables(it->second.table(), value.table());
    } else {
      base.insert_or_assign(key, value);
    }
  }
}

ConfigValue load_config_tree(const std::string& path, const std::vector<std::string>& overrides) {
  std::vector<fs::path> chain;
  ConfigValue tree = load(path, "", chain);
  for (const std::string& assignment : overrides) apply_override(tree, assignment);
  return tree;
}

ConfigValue parse_config_tree(const std::string& text, const std::string& name) {
  std::vector<fs::path> chain;
  return resolve_extends(parse(text, name), "", chain);
}

std::string to_toml(const ConfigTable& table) {
  std::ostringstream out;
  out << to_toml_table(table) << '\n';
  return out.str();
}

}  // namespace retort
