// Fetching a data set with the programs curl and tar.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "data/catalog.h"

namespace retort {

// Makes the set complete under `root`. Downloads to `<archive>.part` (a later call goes on where one was cut off),
// checks the archive's MD5, unpacks beside the final place, checks every file, and only then moves the missing files to
// where they are looked for: whatever interrupts it, what lies there is whole. Files that are there already are kept.
// With `url`, another address, only the files decide: their sizes and, where published, SHA-1. `say` receives
// progress lines. Throws Error: a damaged file already there, no curl, a failed download, a wrong checksum, a damaged
// archive, a full disk.
void fetch_dataset(const KnownSet& set, const std::filesystem::path& root, const std::string& url,
                   const std::function<void(const std::string&)>& say);

}  // namespace retort
