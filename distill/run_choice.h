// What ./train and ./distill are asked to work on: a config, or with --resume also the folder of a run; and the
// command that goes on with a run, for users to copy.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "distill/config_reader.h"

namespace retort {

// As the command line has it.
struct RunRequest {
  std::string program;  // "./train", as the user typed it
  std::string given;    // a config file; a run: runs/NAME, runs/NAME/vN or NAME
  std::vector<std::string> overrides;
  bool resume = false;
  std::optional<int> version;
};

struct RunChoice {
  std::string config;            // the file to read
  std::filesystem::path folder;  // of the version to go on with; empty: the config says which run it is
  std::optional<int> version;    // where the command line names one
};

// `distills`: the program trains students, not a network. Throws Error, one line that says what to do instead, for a
// run where no --resume is given, a run of the other program, a student of a run, and for what is neither file nor run.
RunChoice choose_run(const RunRequest& request, bool distills);

// "./train 'my runs/a/v1' --resume": what a shell takes for going on with a version.
std::string resume_command(const std::string& program, const std::filesystem::path& folder);
// A word as a shell takes it, in quotes where it needs them.
std::string shell_word(const std::string& text);
// The program beside `program` that is called `name`: "build/distill" for "build/train".
std::string sibling_program(const std::string& program, const std::string& name);

// Whether a config is one of ./distill, by the blocks that it has.
bool is_distillation(const ConfigValue& config);

}  // namespace retort
