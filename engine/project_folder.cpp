#include "engine/project_folder.h"

#include <filesystem>

namespace retort {
namespace {

namespace fs = std::filesystem;

bool working_in_build_folder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error || !fs::exists("CMakeCache.txt", error)) return false;
  return fs::equivalent(program.parent_path(), fs::current_path(error), error) && !error;
}

}  // namespace

std::string in_project(const std::string& path) {
  const fs::path given = path;
  if (given.empty() || given.is_absolute() || *given.begin() == ".." || !working_in_build_folder()) return path;
  return (".." / given).string();
}

}  // namespace retort
