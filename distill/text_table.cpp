#include "distill/text_table.h"

#include <algorithm>
#include <numeric>

namespace retort {
namespace {

constexpr std::size_t kGap = 2;

using Rows = std::vector<std::vector<std::string>>;
using Columns = std::vector<std::size_t>;  // numbers of columns, or their widths

std::size_t total_width(const Columns& widths) {
  return std::accumulate(widths.begin(), widths.end(), widths.empty() ? 0 : kGap * (widths.size() - 1));
}

Rows printable_cells(const Rows& rows) {
  Rows cells;
  for (const auto& row : rows) {
    cells.emplace_back();
    std::transform(row.begin(), row.end(), std::back_inserter(cells.back()), printable);
  }
  return cells;
}

Columns natural_widths(const Rows& rows) {
  Columns widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  }
  return widths;
}

// Takes from the widest until all fit, as far as that goes.
void shrink(Columns& widths, std::size_t width) {
  while (total_width(widths) > width) {
    const auto widest = std::max_element(widths.begin(), widths.end());
    if (widest == widths.end() || *widest <= 1) return;
    --*widest;
  }
}

// Which columns stand beside each other.
std::vector<Columns> blocks_of(Columns& widths, const TableLayout& layout) {
  Columns all(widths.size());
  std::iota(all.begin(), all.end(), 0);
  if (total_width(widths) <= layout.width) return {all};
  const std::size_t keys = std::min(layout.keys, widths.size());
  Columns key_widths(widths.begin(), widths.begin() + static_cast<std::ptrdiff_t>(keys));
  shrink(key_widths, layout.width / 2);
  std::copy(key_widths.begin(), key_widths.end(), widths.begin());
  const std::size_t taken = keys > 0 ? total_width(key_widths) + kGap : 0;
  const std::size_t room = std::max(layout.width, taken + 1) - taken;
  const Columns key_columns(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(keys));
  std::vector<Columns> blocks;
  std::size_t used = room;
  for (std::size_t c = keys; c < widths.size(); ++c) {
    widths[c] = std::min(widths[c], room);
    if (used + kGap + widths[c] > room) {
      blocks.push_back(key_columns);
      used = widths[c];
    } else {
      used += kGap + widths[c];
    }
    blocks.back().push_back(c);
  }
  return blocks.empty() ? std::vector<Columns>{key_columns} : blocks;
}

}  // namespace

std::string text_table(const Rows& rows, const TableLayout& layout) {
  const Rows cells = printable_cells(rows);
  Columns widths = natural_widths(cells);
  std::string text;
  for (const Columns& block : blocks_of(widths, layout)) {
    if (!text.empty()) text += '\n';
    for (const auto& row : cells) {
      std::string line;
      for (const std::size_t c : block) {
        const std::string cell = c < row.size() ? shortened(row[c], widths[c]) : "";
        line += padded(cell, widths[c], c < layout.words) + std::string(kGap, ' ');
      }
      text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
  }
  return text;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

}  // namespace retort
