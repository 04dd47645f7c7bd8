// Remembers measured choices in a text file, so that every process that uses the file makes the same ones: which of
// several algorithms is fastest differs from one measurement to the next, and with it the last bits of a result.
//
// One line a choice: context, key and choice between tabs. The first line of a context and key counts. Several
// processes may share a file.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace retort::kernels {

class ChoiceFile {
 public:
  // An empty path: nothing is remembered. `context` is what a choice holds for: device and library versions.
  ChoiceFile(std::string path, std::string context);

  bool enabled() const { return !path_.empty(); }
  // What the file holds for the key.
  std::optional<std::string> find(std::string_view key) const;
  // Appends the choice, unless another process was first: returns what the file holds for the key from now on. Throws
  // Error when the file cannot be written.
  std::string record(std::string_view key, std::string_view choice) const;

 private:
  std::string path_;
  std::string context_;
};

}  // namespace retort::kernels
