// Whether the files of a data set are what was published.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/catalog.h"

namespace retort {

// Lower-case hexadecimal; `algorithm` as OpenSSL names it: "md5", "sha1". Throws Error where the file cannot be read.
std::string file_digest(const std::filesystem::path& path, const std::string& algorithm);

enum class FileState {
  good,  // size and, where asked for and published, checksum are right
  missing,
  damaged,  // truncated, too long or altered
};

struct FileReport {
  const SetFile* file;
  FileState state;
  std::string text;  // what is wrong, or how far it was checked
};

// Each file of a set that lies in `folder`; reading the checksums costs a second for some hundred MB.
std::vector<FileReport> inspect_files(const KnownSet& set, const std::filesystem::path& folder, bool checksums);

// Throws Error naming the first damaged file of the set under `root`; with `complete`, the first missing one too.
void verify_dataset(const KnownSet& set, const std::filesystem::path& root, bool complete);

}  // namespace retort
