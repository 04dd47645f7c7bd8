// Which file a run, a version or a student stands for.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace retort {

// The file that such a path stands for: best.safetensors, else last.safetensors, of the newest version that has one.
// A run goes by its path or, as for ./runs, by its name: runs/NAME, NAME, NAME/v1. Of a run of several students the path
// names one, NAME/STUDENT or NAME/v1/STUDENT; throws Error with their names where it does not. A file that is there is
// itself.
std::string resolve_checkpoint(const std::string& given);

// The paths that a word of a command line or a config may stand for, the likeliest first: as it is, which is where
// ./export wrote; in the project's folder, where runs lie; and the name of a run. Without slashes at the end.
std::vector<std::filesystem::path> paths_called(const std::string& given);

}  // namespace retort
