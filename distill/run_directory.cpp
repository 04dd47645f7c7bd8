#include "distill/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <sstream>

#include "engine/atomic_file.h"
#include "engine/json_text.h"
#include "kernels/error.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLockFile = ".lock";

bool is_locked(const fs::path& version) {
  const int descriptor = ::open((version / kLockFile).c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = flock(descriptor, LOCK_EX | LOCK_NB) != 0;
  ::close(descriptor);
  return locked;
}

}  // namespace

std::optional<int> version_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  int number = 0;
  const char* const end = name.data() + name.size();
  if (name.size() < 2 || name[0] != 'v') return std::nullopt;
  const auto parsed = std::from_chars(name.data() + 1, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number < 1) return std::nullopt;
  return number;
}

std::vector<int> versions_in(const fs::path& run) {
  std::vector<int> versions;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run, ignored)) {
    if (const auto version = version_of(entry.path())) versions.push_back(*version);
  }
  std::sort(versions.begin(), versions.end());
  return versions;
}

std::string checkpoint_in(const fs::path& folder) {
  for (const char* name : {"best.safetensors", "last.safetensors"}) {
    if (fs::exists(folder / name)) return (folder / name).string();
  }
  return "";
}

nlohmann::json read_run_info(const fs::path& folder) {
  std::ifstream file(folder / "run.json");
  const nlohmann::json info = file ? nlohmann::json::parse(file, nullptr, false) : nlohmann::json();
  return info.is_object() ? info : nlohmann::json::object();
}

RunDirectory::RunDirectory(fs::path path, int version) : path_(std::move(path)), version_(version) {
  const std::string lock = file(kLockFile);
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(lock_ >= 0, "{}: cannot be opened: {}", lock, std::strerror(errno));
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail("{}: another process is training this version; wait for it, or start a new version without --resume",
         path_.string());
  }
}

RunDirectory::RunDirectory(RunDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      version_(other.version_),
      lock_(std::exchange(other.lock_, -1)),
      info_(std::move(other.info_)) {}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);  // releases the lock
}

RunDirectory RunDirectory::create(const std::string& root, const std::string& name) {
  const fs::path run = fs::path(root) / name;
  std::error_code error;
  fs::create_directories(run, error);
  check(!error, "{}: cannot be made: {}", run.string(), error.message());
  const std::vector<int> versions = versions_in(run);
  // Making the folder is what claims the number, so two runs started at once get two versions.
  for (int version = versions.empty() ? 1 : versions.back() + 1;; ++version) {
    const fs::path path = run / ("v" + std::to_string(version));
    if (fs::create_directory(path, error)) return RunDirectory(path, version);
    check(!error, "{}: cannot be made: {}", path.string(), error.message());
  }
}

RunDirectory RunDirectory::open(const fs::path& folder) {
  RunDirectory directory(folder, version_of(fs::absolute(folder).lexically_normal()).value_or(0));
  directory.info_ = read_run_info(folder);
  return directory;
}

fs::path version_to_resume(const fs::path& run, std::optional<int> version) {
  const auto folder = [&](int number) { return run / ("v" + std::to_string(number)); };
  const std::vector<int> versions = versions_in(run);
  check(!versions.empty(), "{}: no run to resume; start it without --resume", run.string());
  if (version) {
    check(std::find(versions.begin(), versions.end(), *version) != versions.end(),
          "{}: has no version {}; the newest is {}", run.string(), *version, versions.back());
    return folder(*version);
  }
  const auto newest = std::find_if(versions.rbegin(), versions.rend(),
                                   [&](int number) { return fs::exists(folder(number) / kStateFile); });
  return folder(newest == versions.rend() ? versions.back() : *newest);
}

void RunDirectory::write_config(const std::string& text) {
  write_file_atomically(file("config.cfg"), text);
}

void MetricsLog::append(const nlohmann::ordered_json& object) {
  if (!stream_.is_open()) stream_.open(path_, std::ios::app);
  stream_ << json_text(object) << std::endl;
  check(stream_.good(), "{}: cannot be written: {}", path_, std::strerror(errno));
}

void MetricsLog::truncate(std::int64_t step, int epochs) {
  stream_.close();
  std::ifstream in(path_);
  if (!in) return;
  std::ostringstream kept;
  std::int64_t last_step = 0;
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    if (!object.is_object()) break;  // the process died while it wrote this line
    const std::string kind = object.value("kind", "");
    if (kind == "test") break;
    if (kind == "step") last_step = object.value("step", std::int64_t{0});
    if (last_step > step || (kind == "epoch" && object.value("epoch", 0) > epochs)) break;
    kept << line << '\n';
  }
  write_file_atomically(path_, kept.str());
}

void RunDirectory::update(const nlohmann::ordered_json& values) {
  info_.update(values);
  write_file_atomically(file("run.json"), json_text(info_, 2) + "\n");
}

std::vector<RunEntry> list_runs(const std::string& root) {
  std::vector<RunEntry> entries;
  std::error_code ignored;
  for (const auto& run : fs::directory_iterator(root, ignored)) {
    if (!run.is_directory()) continue;
    for (const int version : versions_in(run.path())) {
      RunEntry entry;
      entry.name = run.path().filename().string();
      entry.version = version;
      entry.path = run.path() / ("v" + std::to_string(version));
      entry.active = is_locked(entry.path);
      entry.info = read_run_info(entry.path);
      entries.push_back(std::move(entry));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const RunEntry& a, const RunEntry& b) {
    return a.name != b.name ? a.name < b.name : a.version < b.version;
  });
  return entries;
}

}  // namespace retort
