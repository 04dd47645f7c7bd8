#include "distill/checkpoint_path.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "distill/run_directory.h"
#include "engine/file_kind.h"
#include "engine/project_folder.h"
#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

fs::path version_folder(const fs::path& run, int version) {
  return run / fmt::format("v{}", version);
}

// The students of a version that have a checkpoint, by name.
std::vector<std::string> students_in(const fs::path& version) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(version, ignored)) {
    if (!checkpoint_in(entry.path()).empty()) names.push_back(entry.path().filename().string());
  }
  // A run's folder has versions in it, not students.
  for (const int number : versions_in(version)) std::erase(names, version_folder({}, number).string());
  std::sort(names.begin(), names.end());
  return names;
}

void check_no_students(const fs::path& version) {
  std::vector<std::string> choices;
  for (const std::string& name : students_in(version)) choices.push_back((version / name).string());
  check(choices.empty(), "{}: is of several students, each with a checkpoint of its own: give one of {}",
        version.string(), fmt::join(choices, ", "));
}

// Of a version's folder or a run's; "" where there is none.
std::string checkpoint_of(const fs::path& folder) {
  if (std::string file = checkpoint_in(folder); !file.empty()) return file;
  check_no_students(folder);
  const std::vector<int> versions = versions_in(folder);
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    const fs::path path = version_folder(folder, *version);
    if (std::string file = checkpoint_in(path); !file.empty()) return file;
    check_no_students(path);
  }
  return "";
}

// Of RUN/STUDENT: the newest version of the run whose student has a checkpoint; "" where there is none.
std::string student_checkpoint(const fs::path& path) {
  const std::vector<int> versions = versions_in(path.parent_path());
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    const fs::path student = version_folder(path.parent_path(), *version) / path.filename();
    if (std::string file = checkpoint_in(student); !file.empty()) return file;
  }
  return "";
}

void check_is_student(const fs::path& path) {
  const fs::path run = path.parent_path();
  std::vector<std::string> known = students_in(run);  // where it is a version's folder itself
  const std::vector<int> versions = versions_in(run);
  for (auto version = versions.rbegin(); version != versions.rend() && known.empty(); ++version) {
    known = students_in(version_folder(run, *version));
  }
  check(known.empty(), "{}: no such student{}; there are {}", path.string(),
        did_you_mean(path.filename().string(), known), fmt::join(known, ", "));
}

std::string similar_run(const std::string& given) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(in_project("runs"), ignored)) {
    names.push_back(entry.path().filename().string());
  }
  const fs::path name = given;
  return did_you_mean(*name.begin() == "runs" ? name.filename().string() : given, names);
}

}  // namespace

std::vector<fs::path> paths_called(const std::string& given) {
  std::vector<fs::path> paths;
  for (fs::path path : {fs::path(given), fs::path(in_project(given)), fs::path(in_project("runs")) / given}) {
    if (!path.has_filename() && path.has_relative_path()) path = path.parent_path();
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(std::move(path));
  }
  return paths;
}

std::string resolve_checkpoint(const std::string& given) {
  check(!given.empty(), "an empty path: expected a run or a file of weights");
  const std::vector<fs::path> paths = paths_called(given);
  fs::path empty_folder;
  for (const fs::path& path : paths) {
    if (!is_there(path)) continue;
    if (!fs::is_directory(path)) return path.string();
    if (std::string file = checkpoint_of(path); !file.empty()) return file;
    if (empty_folder.empty()) empty_folder = path;
  }
  for (const fs::path& path : paths) {
    if (std::string file = student_checkpoint(path); !file.empty()) return file;
  }
  check(empty_folder.empty(),
        "{}: holds no checkpoint (best.safetensors or last.safetensors), nor does a version in it; it is {}",
        empty_folder.string(), foreign_kind(empty_folder.string()));
  for (const fs::path& path : paths) check_is_student(path);
  fail(
      "{}: no such file or folder{}; a teacher or any other classifier is a run (runs/NAME or NAME), a version of it "
      "(NAME/v1), a student of a run of several (NAME/STUDENT), a file of weights (.safetensors, or PyTorch's .pth, "
      ".pt, .th) or an .onnx file",
      given, similar_run(given));
}

}  // namespace retort
