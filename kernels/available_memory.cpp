#include "kernels/available_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/kernels.h"

namespace retort::kernels {
namespace {

namespace fs = std::filesystem;
using Bytes = std::optional<std::size_t>;

std::string text_of(const fs::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// The file's only number; nothing for "max".
Bytes number_in(const fs::path& file) {
  std::ifstream in(file);
  std::size_t value = 0;
  return in >> value ? Bytes(value) : std::nullopt;
}

Bytes smaller(Bytes a, Bytes b) {
  return a && b ? std::min(*a, *b) : a ? a : b;
}

std::size_t difference(std::size_t from, std::size_t what) {
  return from > what ? from - what : 0;
}

// What the group, and each that it lies in, has left below its limit. Its file cache can be had back.
Bytes left_in_groups(fs::path group, const fs::path& root, const char* limit, const char* usage, const char* cache) {
  Bytes left;
  while (true) {
    const Bytes most = number_in(group / limit), used = number_in(group / usage);
    if (most && used) {
      left = smaller(
          left, difference(*most, difference(*used, named_bytes(text_of(group / "memory.stat"), cache).value_or(0))));
    }
    if (group == root || !group.has_relative_path()) return left;
    group = group.parent_path();
  }
}

Bytes left_in_control_groups() {
  Bytes left;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/path", or "4:memory:/path" of version 1
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string kind = line.substr(first + 1, second - first - 1), path = line.substr(second + 2);
    const fs::path root = "/sys/fs/cgroup";
    if (kind.empty()) {
      left = smaller(left, left_in_groups(root / path, root, "memory.max", "memory.current", "file"));
    } else if (kind == "memory") {
      left = smaller(left, left_in_groups(root / "memory" / path, root / "memory", "memory.limit_in_bytes",
                                          "memory.usage_in_bytes", "total_cache"));
    }
  }
  return left;
}

Bytes left_of_address_space() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return difference(limit.rlim_cur, named_bytes(text_of("/proc/self/status"), "VmSize").value_or(0));
}

}  // namespace

Bytes named_bytes(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, unit;
    std::size_t value = 0;
    if (!(words >> key >> value) || (key != name && key != name + ":")) continue;
    return words >> unit && unit == "kB" ? value * 1024 : value;
  }
  return std::nullopt;
}

Bytes available_memory(Device device) {
  if (!device.is_cpu()) {
    const bool real = built_in_cuda_provider().device_count() > 0;  // and not what a test put in its place
    return real ? Bytes(available_cuda_memory(device.index)) : std::nullopt;
  }
  const std::string machine = text_of("/proc/meminfo");
  const std::size_t swap = named_bytes(machine, "SwapFree").value_or(0);
  const Bytes physical = smaller(named_bytes(machine, "MemAvailable"), left_in_control_groups());
  return smaller(physical ? Bytes(*physical + swap) : std::nullopt, left_of_address_space());
}

}  // namespace retort::kernels
