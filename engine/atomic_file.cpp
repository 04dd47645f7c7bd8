#include "engine/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/error.h"

namespace retort {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

// A rename is on disk only after its folder is. Some file systems cannot sync folders (EINVAL): nothing to be done.
int sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int descriptor = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return errno;
  const int error = fsync(descriptor) == 0 || errno == EINVAL ? 0 : errno;
  close(descriptor);
  return error;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path), temporary_(path + ".tmp") {
  while (true) {
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail_with("cannot create its temporary file", errno);
    // The lock tells a leftover from a file being written. Where locks are not supported there is no such check.
    if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      close(descriptor_);
      descriptor_ = -1;
      fail("{}: another process is writing this file", path_);
    }
    // Another writer may have renamed or removed the temporary between our open and our lock.
    struct stat ours, named;
    if (fstat(descriptor_, &ours) == 0 && stat(temporary_.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev) {
      break;
    }
    close(descriptor_);
  }
  if (ftruncate(descriptor_, 0) != 0) {
    const int error = errno;
    unlink(temporary_.c_str());
    close(descriptor_);
    descriptor_ = -1;
    fail_with("cannot empty its temporary file", error);
  }
  pending_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  unlink(temporary_.c_str());
  close(descriptor_);
}

void AtomicFile::fail_with(const char* what, int error) const {
  fail("{}: {}: {}", path_, what, std::strerror(error));
}

void AtomicFile::write_through(const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, data, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with("cannot be written", errno);
    if (written == 0) fail_with("cannot be written", ENOSPC);
    data += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::flush() {
  write_through(pending_.data(), pending_.size());
  pending_.clear();
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  check(descriptor_ >= 0, "{}: written to after it was committed", path_);
  const char* const begin = static_cast<const char*>(data);
  if (pending_.size() + bytes > kBufferBytes) flush();
  if (bytes >= kBufferBytes) {
    write_through(begin, bytes);
  } else {
    pending_.insert(pending_.end(), begin, begin + bytes);
  }
}

void AtomicFile::commit() {
  check(descriptor_ >= 0, "{}: committed twice", path_);
  flush();
  if (fsync(descriptor_) != 0) fail_with("cannot be synced to disk", errno);
  // Renamed before it is closed, while our lock still keeps others from taking the name. After fsync a close has no
  // data left to lose.
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_with("cannot be replaced", errno);
  close(descriptor_);
  descriptor_ = -1;
  if (const int error = sync_folder_of(path_)) fail_with("its folder cannot be synced to disk", error);
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace retort
