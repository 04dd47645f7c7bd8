#include "data/confusion_picture.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/picture.h"
#include "kernels/error.h"

namespace retort {
namespace {

constexpr Color kEmpty = {36, 39, 46}, kRight = {64, 196, 140}, kWrong = {240, 132, 58}, kInk = {16, 18, 22};
constexpr int kMargin = 20, kHeader = 44, kAxis = 18, kLongestName = 122, kNameGap = 6;

Color mixed(const Color& from, const Color& to, double share) {
  Color out;
  for (std::size_t c = 0; c < 3; ++c)
    out[c] = static_cast<std::uint8_t>(std::lround(from[c] + share * (to[c] - from[c])));
  return out;
}

struct Layout {
  explicit Layout(const std::vector<std::string>& names)
      : cell(std::clamp(960 / static_cast<int>(names.size()), 1, 36)) {
    const int classes = static_cast<int>(names.size());
    named = cell >= 8;
    int longest = 0;
    for (const std::string& name : names) longest = std::max(longest, text_width(cut_to_width(name, kLongestName)));
    left = kMargin + kAxis + (named ? longest + kNameGap : 0);
    top = kMargin + kHeader + kAxis + (named ? longest + kNameGap : 0);
    side = classes * cell;
    gap = cell >= 8 ? 1 : 0;
  }
  int cell, gap, left, top, side;
  bool named;
};

void draw_cell(Picture& picture, const Layout& at, int row, int column, double share) {
  const int x = at.left + column * at.cell, y = at.top + row * at.cell;
  const bool right = row == column;
  picture.fill(x, y, x + at.cell - at.gap, y + at.cell - at.gap,
               mixed(kEmpty, right ? kRight : kWrong, std::sqrt(share)));
  const std::string percent = fmt::format("{:.0f}", 100 * share);
  if (at.cell < 24 || percent == "0") return;
  picture.text(x + (at.cell - text_width(percent)) / 2, y + (at.cell - kTextHeight) / 2 + 1, 1, percent,
               share > 0.15 ? kInk : kTitle);
}

void draw_names(Picture& picture, const Layout& at, const std::vector<std::string>& names) {
  for (int k = 0; k < static_cast<int>(names.size()); ++k) {
    const std::string name = cut_to_width(names[static_cast<std::size_t>(k)], kLongestName);
    const int middle = k * at.cell + (at.cell - kTextHeight) / 2 + 1;
    picture.text(at.left - kNameGap - text_width(name), at.top + middle, 1, name, kCaption);
    picture.text_upwards(at.left + middle, at.top - kNameGap, 1, name, kCaption);
  }
}

}  // namespace

void write_png(const ConfusionPicture& confusion, const std::filesystem::path& path) {
  const int classes = static_cast<int>(confusion.class_names.size());
  check(classes > 0 && confusion.counts.size() == confusion.class_names.size() * confusion.class_names.size(),
        "{}: a matrix of {} counts for {} classes", path.string(), confusion.counts.size(), classes);
  const Layout at(confusion.class_names);
  const std::string legend = "colour: share of the label's images, square-root scale";
  const int wanted = at.left + at.side,
            titled = kMargin + std::max(2 * text_width(confusion.title), text_width(legend));
  Picture picture(std::max(wanted, titled) + kMargin, at.top + at.side + kMargin);
  picture.text(kMargin, kMargin, 2, confusion.title, kTitle);
  picture.text(kMargin, kMargin + 22, 1, legend, kCaption);
  const std::string across = "predicted class", down = "label";
  picture.text(at.left + (at.side - text_width(across)) / 2, kMargin + kHeader, 1, across, kTitle);
  picture.text_upwards(kMargin, at.top + (at.side + text_width(down)) / 2, 1, down, kTitle);
  if (at.named) draw_names(picture, at, confusion.class_names);
  for (int row = 0; row < classes; ++row) {
    const auto begin = confusion.counts.begin() + static_cast<std::ptrdiff_t>(row) * classes;
    const std::int64_t images = std::accumulate(begin, begin + classes, std::int64_t{0});
    for (int column = 0; column < classes; ++column) {
      const double share = images > 0 ? static_cast<double>(begin[column]) / static_cast<double>(images) : 0;
      draw_cell(picture, at, row, column, share);
    }
  }
  picture.write_png(path);
}

}  // namespace retort
