// ./runs rm: versions of runs, gone for good.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "distill/run_directory.h"

namespace retort {

// What NAME (all its versions), NAME/vN or a path to either stands for below `root`, each version once. Throws Error
// for a name that is no such thing, a version that is being trained, and a run or version that is a link, since what it
// leads to may lie anywhere.
std::vector<RunEntry> runs_to_remove(const std::string& root, const std::vector<std::string>& names);

std::uintmax_t bytes_in(const RunEntry& run);  // links count nothing

// With all that lies in it, links themselves but not what they lead to; and the folder of the run's name where nothing
// is left in it. Throws Error where a process trains the version or it cannot be removed.
void remove_run(const RunEntry& run);

}  // namespace retort
