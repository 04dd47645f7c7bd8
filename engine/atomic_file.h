// Replacing a file so that a crash or a full disk at any point leaves either the old file or the new one, whole.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace retort {

// Writes to "<path>.tmp" in the same folder; commit() syncs it, renames it onto `path` and syncs the folder. Without a
// commit the temporary is removed and `path` stays as it was. Every failure throws Error, one line: the path, what was
// tried, the system's reason. A temporary left behind by a killed process is taken over by the next writer; one that a
// living process is writing is an Error.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  void flush();
  void write_through(const char* data, std::size_t bytes);
  [[noreturn]] void fail_with(const char* what, int error) const;

  std::string path_, temporary_;
  std::vector<char> pending_;
  int descriptor_ = -1;
};

void write_file_atomically(const std::string& path, std::string_view bytes);

}  // namespace retort
