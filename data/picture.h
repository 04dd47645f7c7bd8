// Drawing for the pictures that programs write: rectangles and text on a dark ground.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace retort {

using Color = std::array<std::uint8_t, 3>;
inline constexpr Color kBackground = {24, 26, 31};
inline constexpr Color kTitle = {235, 238, 243};
inline constexpr Color kCaption = {168, 176, 189};

inline constexpr int kTextHeight = 9;     // pixels at scale 1, descenders included
int text_width(const std::string& line);  // pixels at scale 1
// As much of it, from the left, as fits into `width` pixels at scale 1.
std::string cut_to_width(std::string line, int width);

class Picture {
 public:
  Picture(int w, int h);
  // What lies outside of the picture is left out.
  void fill(int x0, int y0, int x1, int y1, const Color& color);
  // From its upper left corner to the right.
  void text(int x, int y, int scale, const std::string& line, const Color& color);
  // From its lower left corner upwards.
  void text_upwards(int x, int y, int scale, const std::string& line, const Color& color);
  // Throws Error where the file cannot be written.
  void write_png(const std::filesystem::path& path) const;

  int width, height;
  std::vector<Color> pixels;
};

}  // namespace retort
