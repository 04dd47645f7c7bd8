#include "data/sample_grid.h"

#include <algorithm>
#include <cmath>

#include "data/picture.h"
#include "kernels/error.h"

namespace retort {
namespace {

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
    const std::string caption = cut_to_width(grid.captions[static_cast<std::size_t>(i)], tile_w);
    picture.text(left + (tile_w - text_width(caption)) / 2, top + tile_h + 5, 1, caption, kCaption);
  }
  picture.write_png(path);
}

}  // namespace retort
