// The folder of a run: <root>/<name>/v<N>/ with
//   config.cfg           the resolved config: ./train <this file> repeats the run
//   run.json             state, results so far, build and device: what ./runs shows
//   log.txt              the lines that the run printed
//   metrics.jsonl        one object a step, an epoch and a test, numbers with all their digits
//   last, best, state    .safetensors, written by the trainer
// One process at a time owns a version: a lock file says so.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace retort {

// metrics.jsonl.
class MetricsLog {
 public:
  explicit MetricsLog(std::string path) : path_(std::move(path)) {}
  // Appends one line; flushed at once.
  void append(const nlohmann::ordered_json& object);
  // Drops all that was logged after step `step` and `epoch` whole epochs, and the tests, as a resumed run will log it
  // again. Lines that cannot be read go too: then the file as it was stays as PATH.damaged, and the result is a line
  // for the log that says so; else "".
  std::string truncate(std::int64_t step, int epoch);

 private:
  std::string path_;
  std::ofstream stream_;
};

class RunDirectory {
 public:
  // Makes the next version of a run.
  static RunDirectory create(const std::string& root, const std::string& name);
  // Opens a version for going on with, the newest without a number. Throws Error where it does not exist or another
  // process works on it.
  static RunDirectory open(const std::string& root, const std::string& name, std::optional<int> version);
  RunDirectory(RunDirectory&& other) noexcept;
  RunDirectory& operator=(RunDirectory&&) = delete;
  ~RunDirectory();

  const std::filesystem::path& path() const { return path_; }
  int version() const { return version_; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

  void write_config(const std::string& text);
  const nlohmann::ordered_json& info() const { return info_; }  // run.json
  // What there is to say about the version that was opened - a damaged run.json - or "".
  const std::string& note() const { return note_; }
  // Sets keys of run.json, null takes one away; the file is replaced atomically.
  void update(const nlohmann::ordered_json& values);

 private:
  RunDirectory(std::filesystem::path path, int version);

  std::filesystem::path path_;
  int version_;
  int lock_ = -1;
  nlohmann::ordered_json info_ = nlohmann::ordered_json::object();
  std::string note_;
};

// The numbers of the versions in a run's folder, ascending.
std::vector<int> versions_in(const std::filesystem::path& run);

// The checkpoint in a version's folder: best.safetensors, else last.safetensors, else "".
std::string checkpoint_in(const std::filesystem::path& folder);

// run.json of a version, its known keys of their types; an empty object where there is none, {"state": "damaged"} where
// it is no such thing.
nlohmann::json read_run_info(const std::filesystem::path& folder);

// One version as ./runs shows it; `info` is run.json, empty where that is missing.
struct RunEntry {
  std::string name;
  int version = 0;
  std::filesystem::path path;
  bool active = false;  // a process works on it now
  nlohmann::json info;
};

// All versions of all runs below `root`, by name and version. A missing root holds no runs.
std::vector<RunEntry> list_runs(const std::string& root);

}  // namespace retort
