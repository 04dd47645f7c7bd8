// What is accepted must read back equal.
#include <cstdlib>
#include <string>

#include "distill/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (text.find("extends") != std::string::npos) return 0;  // other files of this machine are no input
  try {
    const retort::TrainConfig config = retort::train_config_of(retort::parse_config_tree(text, "fuzz"), "fuzz");
    const std::string resolved = retort::to_toml(config);
    try {
      if (retort::train_config_of(retort::parse_config_tree(resolved, "again"), "fuzz") == config) return 0;
    } catch (const retort::Error&) {
    }
    std::abort();
  } catch (const retort::Error&) {
  }
  return 0;
}
