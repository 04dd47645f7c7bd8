// Both kinds of config: what is accepted must read back equal, from what the run's config.cfg would hold.
#include <cstdlib>
#include <optional>
#include <string>

#include "distill/distill_config.h"

namespace {

template <typename Read>  // Read: ConfigValue -> resolved text, throws Error
void check_reading(const std::string& text, Read read) {
  std::optional<std::string> resolved;
  try {
    resolved = read(retort::parse_config_tree(text, "fuzz"));
    if (read(retort::parse_config_tree(*resolved, "again")) == *resolved) return;
  } catch (const retort::Error&) {
    if (!resolved) return;
  }
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (text.find("extends") != std::string::npos) return 0;  // other files of this machine are no input
  check_reading(text, [](const retort::ConfigValue& tree) { return to_toml(retort::train_config_of(tree, "fuzz")); });
  check_reading(text, [](const retort::ConfigValue& tree) { return retort::distill_config_of(tree, "fuzz").resolved; });
  return 0;
}
