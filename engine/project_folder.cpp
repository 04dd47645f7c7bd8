#include "engine/project_folder.h"

#include <filesystem>

namespace retort {
namespace {

namespace fs = std::filesystem;

// Of the running program; "" where the system does not say.
fs::path program_folder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : program.parent_path();
}

bool working_in_build_folder() {
  std::error_code error;
  const fs::path folder = program_folder();
  if (folder.empty() || !fs::exists("CMakeCache.txt", error)) return false;
  return fs::equivalent(folder, fs::current_path(error), error) && !error;
}

}  // namespace

std::string in_project(const std::string& path) {
  const fs::path given = path;
  if (given.empty() || given.is_absolute() || *given.begin() == ".." || !working_in_build_folder()) return path;
  return (".." / given).string();
}

std::string find_config(const std::string& given) {
  std::error_code ignored;
  if (fs::exists(given, ignored) || given != fs::path(given).filename()) return given;
  const fs::path installed = program_folder().parent_path() / "share/retort/configs" / given;
  return fs::exists(installed, ignored) ? installed.string() : given;
}

}  // namespace retort
