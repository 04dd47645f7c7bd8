// What a file is that was given as weights and is none, told by its content and not by its name.
#pragma once

#include <string>
#include <vector>

#include "engine/zip_file.h"

namespace retort {

// "a Git LFS pointer, ...: run git lfs pull", to stand behind "FILE: is "; "" for what may be a file of weights, and
// for what is not known.
std::string foreign_kind(const std::string& path);

// The same of a zip archive; "" for one of torch.save's, and for what is not known.
std::string foreign_kind(const std::vector<ZipEntry>& entries);

}  // namespace retort
