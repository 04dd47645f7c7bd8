// The data sets this program knows, and what their files look like.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace retort {

struct SetFile {
  std::string name;
  std::int64_t records;
  bool train;
  std::string sha1;  // empty where no published value is known
};

struct KnownSet {
  std::string name;
  std::string summary;  // one clause for listings
  // The rest is empty for sets that the program makes itself.
  std::string folder;       // under the root
  std::string archive_url;  // a tar.gz that holds `folder`
  std::string archive_md5;
  std::vector<SetFile> files;
  std::string names_file;  // one class name a line; the built-in names serve where it is absent
  std::vector<std::string> class_names;
  int label_bytes = 0;  // before each record's pixels; the last of them is the label
  int height = 0, width = 0;

  bool built_in() const { return folder.empty(); }
  int class_count() const { return static_cast<int>(class_names.size()); }
  std::int64_t record_bytes() const { return label_bytes + std::int64_t{3} * height * width; }
};

const std::vector<KnownSet>& known_sets();

// Throws Error naming the nearest known set and all of them.
const KnownSet& known_set(const std::string& name);

}  // namespace retort
