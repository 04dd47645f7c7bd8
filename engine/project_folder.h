// Where relative paths begin.
#pragma once

#include <string>

namespace retort {

// A path from a config, or a default such as "runs" or "datasets", as seen from the working folder. It begins there;
// but for a program that is started in the CMake build folder it lies in, it begins one folder above, in the project's:
// programs and configs are used side by side in `build/`, and a folder called `runs` cannot lie beside the program of
// that name. Absolute paths and those that begin with ".." stay what they are.
std::string in_project(const std::string& path);

// A config as given, or where no such file is there and it is a plain name, the one that an installed Retort has of that
// name: <prefix>/share/retort/configs beside <prefix>/bin. `./train teacher.cfg` works in any folder then.
std::string find_config(const std::string& given);

}  // namespace retort
