// A picture of a data set: images with their class names, as a PNG.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace retort {

struct SampleGrid {
  std::string title;  // one line above the grid
  int columns = 10;
  int height = 0, width = 0;          // of each image
  std::vector<float> images;          // [count, height, width, 3] in 0 .. 1
  std::vector<std::string> captions;  // [count]
};

// Throws Error where the file cannot be written.
void write_png(const SampleGrid& grid, const std::filesystem::path& path);

}  // namespace retort
