// Where the keys of a config were written, kept beside its values for what is found wrong only later: with the images, a
// network or a device at hand. Every such error begins like those of reading:
//   teacher.cfg:12: [data] validation = 60000: ...
#pragma once

#include <map>
#include <string>

#include "distill/config_reader.h"
#include "kernels/error.h"

namespace retort {

class ConfigOrigin {
 public:
  ConfigOrigin() = default;  // of a config that was put together by a program
  explicit ConfigOrigin(const ConfigValue& tree);

  // What an error about a key begins with; `key` as --set takes it: "data.augment.1". Of a key that is not given: the
  // file and the key.
  std::string place(const std::string& key) const;
  [[noreturn]] void reject(const std::string& key, const std::string& problem) const {
    fail("{}: {}", place(key), problem);
  }
  // Runs `work`; an Error of it is one about `key`.
  template <typename Work>
  auto about(const std::string& key, Work&& work) const {
    try {
      return work();
    } catch (const Error& e) {
      reject(key, e.what());
    }
  }

  std::string note;  // what a log says of it first, or ""

  // Configs are what they say, not where they were written.
  bool operator==(const ConfigOrigin&) const { return true; }

 private:
  struct Key {
    std::string where, value;
  };
  std::string file_;
  std::map<std::string, Key> keys_;  // sections too
};

}  // namespace retort
