#include "distill/run_choice.h"

#include <fmt/format.h>

#include <algorithm>

#include "distill/checkpoint_path.h"
#include "distill/run_directory.h"
#include "engine/project_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

bool is_version(const fs::path& folder) {
  return fs::exists(folder / "run.json") || fs::exists(folder / kStateFile);
}

bool is_run(const fs::path& folder) {
  const std::vector<int> versions = versions_in(folder);
  return std::any_of(versions.begin(), versions.end(),
                     [&](int version) { return fs::is_directory(folder / fmt::format("v{}", version)); });
}

std::vector<fs::path> folders_called(const std::string& given) {
  std::vector<fs::path> folders = paths_called(given);
  std::erase_if(folders, [](const fs::path& path) { return !fs::is_directory(path); });
  return folders;
}

// The folder of a run or of a version that a word stands for; empty where it stands for none.
fs::path run_folder(const std::string& given) {
  for (const fs::path& folder : folders_called(given)) {
    if (is_version(folder) || is_run(folder)) return folder;
  }
  return {};
}

// Where a run has a folder for each student, they go on together.
void refuse_student(const std::string& given, const std::string& program) {
  for (const fs::path& folder : folders_called(given)) {
    const fs::path version = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
    if (!is_version(version)) continue;
    fail("{}: is a student of {}, whose students train together; to go on with all of them: {}", given,
         version.string(), resume_command(sibling_program(program, "distill"), version));
  }
}

bool sets(const RunRequest& request, const std::string& key) {
  return std::any_of(request.overrides.begin(), request.overrides.end(),
                     [&](const std::string& assignment) { return assignment.starts_with(key + "="); });
}

void refuse_other_program(const RunRequest& request, const fs::path& version, bool distills) {
  const fs::path config = version / "config.cfg";
  if (!fs::exists(config) || is_distillation(load_config_tree(config.string())) == distills) return;
  fail("{}: is a run of {}; to go on with it: {}", version.string(), distills ? "./train" : "./distill",
       resume_command(sibling_program(request.program, distills ? "train" : "distill"), version));
}

RunChoice choose_version(const RunRequest& request, const fs::path& folder, bool distills) {
  RunChoice choice;
  choice.version = request.version;
  if (is_version(folder)) {
    const int number = version_of(fs::absolute(folder).lexically_normal()).value_or(0);
    check(!request.version || *request.version == number, "--version {}: {} is one version of a run already",
          request.version.value_or(0), folder.string());
    choice.folder = folder;
    choice.version = number;
  } else {
    choice.folder = version_to_resume(folder, request.version);
  }
  refuse_other_program(request, choice.folder, distills);
  for (const char* key : {"name", "output.root"}) {
    check(!sets(request, key), "--set {}: {} says where the run lies; leave it out", key, request.given);
  }
  choice.config = (choice.folder / "config.cfg").string();
  check(fs::exists(choice.config),
        "{}: is not there: go on by way of the config that the run was started with: {} CONFIG --resume", choice.config,
        shell_word(request.program));
  return choice;
}

[[noreturn]] void refuse_run(const RunRequest& request, const fs::path& folder, bool distills) {
  const fs::path version = is_version(folder) ? folder : version_to_resume(folder, std::nullopt);
  refuse_other_program(request, version, distills);
  fail("{}: is a run; to go on with it: {}; to train anew as it was: {} {}", request.given,
       resume_command(request.program, folder), shell_word(request.program),
       shell_word((version / "config.cfg").string()));
}

}  // namespace

RunChoice choose_run(const RunRequest& request, bool distills) {
  if (fs::exists(request.given) && !fs::is_directory(request.given)) {
    // A run's own record goes on where it lies, wherever the run has been moved to.
    const fs::path file = request.given, folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
    const bool record = file.filename() == "config.cfg" && is_version(folder);
    if (!request.resume || !record || request.version || sets(request, "name") || sets(request, "output.root")) {
      return {request.given, {}, request.version};
    }
    return choose_version(request, folder, distills);
  }
  const fs::path folder = run_folder(request.given);
  if (!folder.empty() && !request.resume) refuse_run(request, folder, distills);
  if (!folder.empty()) return choose_version(request, folder, distills);
  refuse_student(request.given, request.program);
  if (fs::is_directory(request.given)) {
    fail("{}: is a folder; expected a config file{}", request.given, request.resume ? " or the folder of a run" : "");
  }
  check(!request.resume, "{}: no such config file, and no run of that name in {}; ./runs lists those that are there",
        request.given, in_project("runs"));
  return {request.given, {}, request.version};  // reading it says that it is not there
}

std::string shell_word(const std::string& text) {
  const bool plain = !text.empty() && text[0] != '-' && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || std::string_view("_@%+=:,./-").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return text;
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string resume_command(const std::string& program, const fs::path& folder) {
  std::string path = folder.string();
  if (path.starts_with('-')) path.insert(0, "./");  // no option
  return fmt::format("{} {} --resume", shell_word(program), shell_word(path));
}

std::string sibling_program(const std::string& program, const std::string& name) {
  const std::size_t slash = program.rfind('/');
  return slash == std::string::npos ? name : program.substr(0, slash + 1) + name;
}

bool is_distillation(const ConfigValue& config) {
  return std::any_of(config.table().begin(), config.table().end(), [](const auto& entry) {
    return entry.first == "distill" || entry.first == "teacher" || entry.first == "loss" || entry.first == "student";
  });
}

}  // namespace retort
