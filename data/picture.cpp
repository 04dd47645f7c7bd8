#include "data/picture.h"

#include <algorithm>

#include "kernels/error.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb/stb_easy_font.h>
#include <stb/stb_image_write.h>

namespace retort {
namespace {

struct Box {
  int x0, y0, x1, y1;
};

// The font is made of axis-aligned rectangles on a grid of whole pixels.
std::vector<Box> boxes_of(const std::string& line) {
  struct Vertex {
    float x, y, z;
    std::uint8_t color[4];
  };
  std::vector<Vertex> vertices(line.size() * 64 + 64);
  std::string copy = line;
  const int quads = stb_easy_font_print(0, 0, copy.data(), nullptr, vertices.data(),
                                        static_cast<int>(vertices.size() * sizeof(Vertex)));
  std::vector<Box> boxes;
  for (int q = 0; q < quads; ++q) {
    const Vertex& from = vertices[static_cast<std::size_t>(4 * q)];
    const Vertex& to = vertices[static_cast<std::size_t>(4 * q + 2)];
    boxes.push_back(
        {static_cast<int>(from.x), static_cast<int>(from.y), static_cast<int>(to.x), static_cast<int>(to.y)});
  }
  return boxes;
}

}  // namespace

int text_width(const std::string& line) {
  std::string copy = line;
  return stb_easy_font_width(copy.data());
}

std::string cut_to_width(std::string line, int width) {
  while (!line.empty() && text_width(line) > width) line.pop_back();
  return line;
}

Picture::Picture(int w, int h)
    : width(w), height(h), pixels(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {
  std::fill(pixels.begin(), pixels.end(), kBackground);
}

void Picture::fill(int x0, int y0, int x1, int y1, const Color& color) {
  for (int y = std::max(y0, 0); y < std::min(y1, height); ++y) {
    for (int x = std::max(x0, 0); x < std::min(x1, width); ++x) pixels[static_cast<std::size_t>(y * width + x)] = color;
  }
}

void Picture::text(int x, int y, int scale, const std::string& line, const Color& color) {
  for (const Box& b : boxes_of(line))
    fill(x + scale * b.x0, y + scale * b.y0, x + scale * b.x1, y + scale * b.y1, color);
}

void Picture::text_upwards(int x, int y, int scale, const std::string& line, const Color& color) {
  for (const Box& b : boxes_of(line))
    fill(x + scale * b.y0, y - scale * b.x1, x + scale * b.y1, y - scale * b.x0, color);
}

void Picture::write_png(const std::filesystem::path& path) const {
  check(stbi_write_png(path.c_str(), width, height, 3, pixels.data(), width * 3) != 0,
        "{}: the picture cannot be written", path.string());
}

}  // namespace retort
