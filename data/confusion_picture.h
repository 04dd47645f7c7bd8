// A confusion matrix as a picture.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace retort {

struct ConfusionPicture {
  std::string title;                     // one line
  std::vector<std::string> class_names;  // one a class
  std::vector<std::int64_t> counts;      // [label, predicted]
};

// Rows are labels, columns predictions; a cell's colour says which share of the row's images it holds, on a square-root
// scale, green on the diagonal and orange off it. Up to 25 classes the percentages stand in the cells, up to 120 the
// names beside them; beyond 960 classes a cell is one pixel. Throws Error where the file cannot be written.
void write_png(const ConfusionPicture& confusion, const std::filesystem::path& path);

}  // namespace retort
