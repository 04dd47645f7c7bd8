#include "distill/config_origin.h"

namespace retort {
namespace {

// "data.augment.1" as errors name it: "[data] augment 2"; what has no section stands alone.
std::string words_of(const std::string& key) {
  const std::size_t section = key.find('.');
  if (section == std::string::npos) return key;
  std::string rest = key.substr(section + 1);
  if (const std::size_t dot = rest.find('.'); dot != std::string::npos) {
    rest = fmt::format("{} {}", rest.substr(0, dot), std::stoi(rest.substr(dot + 1)) + 1);
  }
  return fmt::format("[{}] {}", key.substr(0, section), rest);
}

}  // namespace

ConfigOrigin::ConfigOrigin(const ConfigValue& tree) : file_(tree.where) {
  for (const auto& [name, value] : tree.table()) {
    keys_[name] = {value.where, value.is_table() ? "" : text_of(value)};
    if (!value.is_table()) continue;
    for (const auto& [key, inner] : value.table()) {
      const std::string path = name + "." + key;
      keys_[path] = {inner.where, text_of(inner)};
      const auto* const elements = std::get_if<ConfigArray>(&inner.data);
      for (std::size_t i = 0; elements != nullptr && i < elements->size(); ++i) {
        keys_[fmt::format("{}.{}", path, i)] = {(*elements)[i].where, text_of((*elements)[i])};
      }
    }
  }
}

std::string ConfigOrigin::place(const std::string& key) const {
  if (const auto it = keys_.find(key); it != keys_.end()) {
    return fmt::format("{}: {} = {}", it->second.where, words_of(key), it->second.value);
  }
  const auto section = keys_.find(key.substr(0, key.find('.')));
  const std::string& where = section != keys_.end() ? section->second.where : file_;
  return where.empty() ? words_of(key) : fmt::format("{}: {}", where, words_of(key));
}

}  // namespace retort
