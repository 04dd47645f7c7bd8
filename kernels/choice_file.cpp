#include "kernels/choice_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/error.h"

namespace retort::kernels {
namespace {

// A file descriptor that holds the file's lock; others wait.
class LockedFile {
 public:
  LockedFile(const std::string& path, int flags, int lock) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ >= 0) flock(fd_, lock);
  }
  ~LockedFile() {
    if (fd_ >= 0) close(fd_);
  }
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;

  bool is_open() const { return fd_ >= 0; }
  std::string read_all() const {
    std::string text;
    std::array<char, 1 << 16> buffer;
    lseek(fd_, 0, SEEK_SET);
    for (ssize_t count; (count = read(fd_, buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return text;
  }
  bool truncate(std::size_t bytes) const { return ftruncate(fd_, static_cast<off_t>(bytes)) == 0; }
  bool append(std::string_view text) const {
    return write(fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }

 private:
  int fd_;
};

std::optional<std::string> find_line(std::string_view text, const std::string& prefix) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) break;  // a line that a crash cut off
    const std::string_view line = text.substr(0, end);
    if (line.starts_with(prefix)) return std::string(line.substr(prefix.size()));
    text.remove_prefix(end + 1);
  }
  return std::nullopt;
}

std::string prefix_of(const std::string& context, std::string_view key) {
  return fmt::format("{}\t{}\t", context, key);
}

}  // namespace

ChoiceFile::ChoiceFile(std::string path, std::string context) : path_(std::move(path)), context_(std::move(context)) {
  std::replace_if(
      context_.begin(), context_.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
}

std::optional<std::string> ChoiceFile::find(std::string_view key) const {
  if (!enabled()) return std::nullopt;
  const LockedFile file(path_, O_RDONLY, LOCK_SH);
  return file.is_open() ? find_line(file.read_all(), prefix_of(context_, key)) : std::nullopt;
}

std::string ChoiceFile::record(std::string_view key, std::string_view choice) const {
  if (!enabled()) return std::string(choice);
  const std::string prefix = prefix_of(context_, key);
  const LockedFile file(path_, O_RDWR | O_CREAT | O_APPEND, LOCK_EX);
  check(file.is_open(), "{}: cannot be opened for measured choices: {}", path_, std::strerror(errno));
  const std::string text = file.read_all();
  if (auto first = find_line(text, prefix)) return *first;
  const std::size_t whole = text.rfind('\n') + 1;  // npos + 1 is 0: what follows is a line that a crash cut off
  check((whole == text.size() || file.truncate(whole)) && file.append(fmt::format("{}{}\n", prefix, choice)),
        "{}: a measured choice cannot be written: {}", path_, std::strerror(errno));
  return std::string(choice);
}

}  // namespace retort::kernels
