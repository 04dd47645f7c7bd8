#include "distill/flat_config.h"

#include <algorithm>

namespace retort {
namespace {

void flatten(const ConfigValue& value, const std::string& key, FlatConfig& out) {
  const auto below = [&](const std::string& name) { return key.empty() ? name : key + "." + name; };
  if (value.is_table()) {
    for (const auto& [name, child] : value.table()) flatten(child, below(name), out);
    return;
  }
  const auto* list = std::get_if<ConfigArray>(&value.data);
  if (list != nullptr && std::any_of(list->begin(), list->end(), [](const ConfigValue& v) { return v.is_table(); })) {
    for (std::size_t i = 0; i < list->size(); ++i) flatten((*list)[i], below(std::to_string(i)), out);
    return;
  }
  out[key] = plain_value(value);
}

}  // namespace

FlatConfig flat_config(const ConfigValue& tree) {
  FlatConfig out;
  flatten(tree, "", out);
  return out;
}

nlohmann::ordered_json plain_value(const ConfigValue& leaf) {
  return std::visit(
      [](const auto& v) -> nlohmann::ordered_json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, ConfigArray>) {
          auto list = nlohmann::ordered_json::array();
          for (const ConfigValue& element : v) list.push_back(plain_value(element));
          return list;
        } else if constexpr (std::is_same_v<T, ConfigTable>) {
          return nullptr;
        } else {
          return v;
        }
      },
      leaf.data);
}

}  // namespace retort
