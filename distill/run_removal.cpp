#include "distill/run_removal.h"

#include <algorithm>

#include "engine/project_folder.h"
#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

fs::path normal(const fs::path& path) {
  return fs::absolute(path).lexically_normal();
}

void check_removable(const RunEntry& run) {
  for (const fs::path& path : {run.path.parent_path(), run.path}) {
    std::error_code ignored;
    check(!fs::is_symlink(path, ignored), "{}: is a link to {}; links are not followed, remove it yourself",
          path.string(), fs::read_symlink(path, ignored).string());
  }
  check(!run.active, "{}: is being trained; stop that first", run.path.string());
}

}  // namespace

std::vector<RunEntry> runs_to_remove(const std::string& root, const std::vector<std::string>& names) {
  const std::vector<RunEntry> runs = list_runs(root);
  std::vector<RunEntry> chosen;
  for (const std::string& name : names) {
    std::string wanted = name;
    while (wanted.size() > 1 && wanted.back() == '/') wanted.pop_back();
    bool found = false;
    for (const fs::path& path : {normal(fs::path(root) / wanted), normal(in_project(wanted))}) {
      for (const RunEntry& run : runs) {
        const fs::path version = normal(run.path);
        if (path != version && path != version.parent_path()) continue;
        found = true;
        const bool again =
            std::any_of(chosen.begin(), chosen.end(), [&](const RunEntry& c) { return c.path == run.path; });
        if (!again) chosen.push_back(run);
      }
      if (found) break;
    }
    std::vector<std::string> known;
    for (const RunEntry& run : runs) {
      known.push_back(run.name);
      known.push_back(fmt::format("{}/v{}", run.name, run.version));
    }
    check(found, "{}: no such run or version in {}{}", in_quotes(name), root, did_you_mean(wanted, known));
  }
  std::for_each(chosen.begin(), chosen.end(), check_removable);
  return chosen;
}

std::uintmax_t bytes_in(const RunEntry& run) {
  std::uintmax_t bytes = 0;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(run.path, ignored)) {
    if (!entry.is_symlink(ignored) && entry.is_regular_file(ignored)) bytes += entry.file_size(ignored);
  }
  return bytes;
}

void remove_run(const RunEntry& run) {
  const RunDirectory lock = RunDirectory::open(run.path);
  std::error_code error;
  fs::remove_all(run.path, error);
  check(!error, "{}: cannot be removed: {}", run.path.string(), error.message());
  fs::remove(run.path.parent_path(), error);  // does so only where it is empty
}

}  // namespace retort
