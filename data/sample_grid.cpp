#include "data/sample_grid.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/error.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb/stb_easy_font.h>
#include <stb/stb_image_write.h>

namespace retort {
namespace {

using Color = std::array<std::uint8_t, 3>;
constexpr Color kBackground = {24, 26, 31};
constexpr Color kTitle = {235, 238, 243};
constexpr Color kCaption = {168, 176, 189};

class Picture {
 public:
  Picture(int w, int h) : width(w), height(h), pixels(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {
    std::fill(pixels.begin(), pixels.end(), kBackground);
  }
  void fill(int x0, int y0, int x1, int y1, const Color& color) {
    for (int y = std::max(y0, 0); y < std::min(y1, height); ++y) {
      for (int x = std::max(x0, 0); x < std::min(x1, width); ++x)
        pixels[static_cast<std::size_t>(y * width + x)] = color;
    }
  }
  // The font is made of axis-aligned rectangles on a grid of whole pixels.
  void text(int x, int y, int scale, const std::string& line, const Color& color) {
    struct Vertex {
      float x, y, z;
      std::uint8_t color[4];
    };
    std::vector<Vertex> vertices(line.size() * 64 + 64);
    std::string copy = line;
    const int quads = stb_easy_font_print(0, 0, copy.data(), nullptr, vertices.data(),
                                          static_cast<int>(vertices.size() * sizeof(Vertex)));
    for (int q = 0; q < quads; ++q) {
      const Vertex& from = vertices[static_cast<std::size_t>(4 * q)];
      const Vertex& to = vertices[static_cast<std::size_t>(4 * q + 2)];
      fill(x + scale * static_cast<int>(from.x), y + scale * static_cast<int>(from.y),
           x + scale * static_cast<int>(to.x), y + scale * static_cast<int>(to.y), color);
    }
  }

  int width, height;
  std::vector<Color> pixels;
};

int text_width(const std::string& line) {
  std::string copy = line;
  return stb_easy_font_width(copy.data());
}

std::uint8_t byte_of(float value) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0f, 1.0f) * 255.0f));
}

}  // namespace

void write_png(const SampleGrid& grid, const std::filesystem::path& path) {
  const int count = static_cast<int>(grid.captions.size());
  check(count > 0 && grid.columns > 0, "{}: no images to draw", path.string());
  const int enlarge = std::max(1, 128 / std::max(grid.height, grid.width));
  const int tile_w = grid.width * enlarge, tile_h = grid.height * enlarge;
  constexpr int kGap = 12, kMargin = 20, kHeader = 34, kCaptionHeight = 16;
  const int columns = std::min(grid.columns, count), rows = (count + columns - 1) / columns;
  Picture picture(2 * kMargin + columns * (tile_w + kGap) - kGap,
                  2 * kMargin + kHeader + rows * (tile_h + kCaptionHeight + kGap) - kGap);
  picture.text(kMargin, kMargin, 2, grid.title, kTitle);
  for (int i = 0; i < count; ++i) {
    const int left = kMargin + i % columns * (tile_w + kGap);
    const int top = kMargin + kHeader + i / columns * (tile_h + kCaptionHeight + kGap);
    const float* image = grid.images.data() + static_cast<std::ptrdiff_t>(i) * grid.height * grid.width * 3;
    for (int y = 0; y < grid.height; ++y) {
      for (int x = 0; x < grid.width; ++x) {
        const float* value = image + (y * grid.width + x) * 3;
        picture.fill(left + x * enlarge, top + y * enlarge, left + (x + 1) * enlarge, top + (y + 1) * enlarge,
                     {byte_of(value[0]), byte_of(value[1]), byte_of(value[2])});
      }
    }
    std::string caption = grid.captions[static_cast<std::size_t>(i)];
    while (!caption.empty() && text_width(caption) > tile_w) caption.pop_back();
    picture.text(left + (tile_w - text_width(caption)) / 2, top + tile_h + 5, 1, caption, kCaption);
  }
  check(stbi_write_png(path.c_str(), picture.width, picture.height, 3, picture.pixels.data(), picture.width * 3) != 0,
        "{}: the picture cannot be written", path.string());
}

}  // namespace retort
