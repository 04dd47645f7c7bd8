#include "distill/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <set>

#include "engine/atomic_file.h"
#include "kernels/error.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLockFile = ".lock";

// The number of "v12", or none.
std::optional<int> version_of(const std::string& folder) {
  int number = 0;
  const char* const end = folder.data() + folder.size();
  if (folder.size() < 2 || folder[0] != 'v') return std::nullopt;
  const auto parsed = std::from_chars(folder.data() + 1, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number < 1) return std::nullopt;
  return number;
}

bool is_locked(const fs::path& version) {
  const int descriptor = ::open((version / kLockFile).c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = flock(descriptor, LOCK_EX | LOCK_NB) != 0;
  ::close(descriptor);
  return locked;
}

constexpr const char* kDamaged = "damaged";

// Whether the keys that programs read have the types that they expect. Numbers may be null, as JSON writes NaN.
bool is_run_info(const nlohmann::json& info) {
  static const std::set<std::string> texts{"state",   "started", "dataset", "device",
                                           "backend", "build",   "arch",    "error"};
  static const std::set<std::string> numbers{"epochs", "epoch", "seconds", "parameters"};
  if (!info.is_object()) return false;
  for (const auto& [key, value] : info.items()) {
    const bool number = numbers.contains(key) || key.starts_with("test_") || key.starts_with("best_");
    if (texts.contains(key) && !value.is_string()) return false;
    if (number && !value.is_number() && !value.is_null()) return false;
    if (key != "students") continue;
    if (!value.is_object() || !std::all_of(value.begin(), value.end(), is_run_info)) return false;
  }
  return true;
}

// The step, epoch or test of a line of metrics.jsonl; kind "" where it is none.
struct LoggedLine {
  std::string kind;
  std::int64_t number = 0;  // of the step or the epoch
};

LoggedLine read_line(const std::string& line) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
  const auto kind = object.is_object() ? object.find("kind") : object.end();
  if (kind == object.end() || !kind->is_string()) return {};
  LoggedLine logged{kind->get<std::string>()};
  if (logged.kind == "test") return logged;
  const auto number = object.find(logged.kind == "epoch" ? "epoch" : "step");
  if (number == object.end() || !number->is_number_integer()) return {};
  logged.number = number->get<std::int64_t>();
  return logged;
}

}  // namespace

std::vector<int> versions_in(const fs::path& run) {
  std::vector<int> versions;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run, ignored)) {
    if (const auto version = version_of(entry.path().filename().string())) versions.push_back(*version);
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
  if (!file) return nlohmann::json::object();
  const nlohmann::json info = nlohmann::json::parse(file, nullptr, false);
  return is_run_info(info) ? info : nlohmann::json{{"state", kDamaged}};
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
      info_(std::move(other.info_)),
      note_(std::move(other.note_)) {}

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

RunDirectory RunDirectory::open(const std::string& root, const std::string& name, std::optional<int> version) {
  const fs::path run = fs::path(root) / name;
  const std::vector<int> versions = versions_in(run);
  check(!versions.empty(), "{}: no run to resume; start it without --resume", run.string());
  const int wanted = version.value_or(versions.back());
  check(std::find(versions.begin(), versions.end(), wanted) != versions.end(),
        "{}: has no version {}; the newest is {}", run.string(), wanted, versions.back());
  const fs::path path = run / ("v" + std::to_string(wanted));
  RunDirectory directory(path, wanted);
  directory.info_ = read_run_info(path);
  if (directory.info_.value("state", "") == kDamaged) {
    const std::string file = directory.file("run.json");
    fs::rename(file, file + ".damaged");
    directory.info_ = nlohmann::ordered_json::object();
    directory.note_ = fmt::format("{}: is damaged; it is kept as run.json.damaged and written anew", file);
  }
  return directory;
}

void RunDirectory::write_config(const std::string& text) {
  write_file_atomically(file("config.cfg"), text);
}

void MetricsLog::append(const nlohmann::ordered_json& object) {
  if (!stream_.is_open()) stream_.open(path_, std::ios::app);
  stream_ << object.dump() << std::endl;
  check(stream_.good(), "{}: cannot be written: {}", path_, std::strerror(errno));
}

std::string MetricsLog::truncate(std::int64_t step, int epoch) {
  stream_.close();
  std::ifstream in(path_);
  if (!in) return "";
  std::string kept, damaged;
  std::int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const LoggedLine logged = read_line(line);
    if (logged.kind.empty()) damaged += fmt::format("{}{}", damaged.empty() ? "" : ", ", number);
    if (logged.kind.empty() || logged.kind == "test") continue;
    if (logged.number <= (logged.kind == "epoch" ? epoch : step)) kept += line + "\n";
  }
  if (!damaged.empty()) {
    fs::copy_file(path_, path_ + ".damaged", fs::copy_options::overwrite_existing);
    damaged = fmt::format("{}: line {} cannot be read and is left out; the file as it was is {}.damaged", path_,
                          damaged, fs::path(path_).filename().string());
  }
  write_file_atomically(path_, kept);
  return damaged;
}

void RunDirectory::update(const nlohmann::ordered_json& values) {
  info_.update(values);
  for (const auto& [key, value] : values.items()) {
    if (value.is_null()) info_.erase(key);
  }
  // An error's text may hold a name that is not UTF-8.
  const std::string text = info_.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  write_file_atomically(file("run.json"), text + "\n");
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
