// Tables as text: for people in columns, for spreadsheets as CSV.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "engine/text.h"

namespace retort {

struct TableLayout {
  std::size_t words = 1;       // columns from the left that hold words; the rest, numbers, are set to the right
  std::size_t keys = 1;        // columns from the left that say what a row is about
  std::size_t width = kWhole;  // of the terminal
};

// Columns as wide as their widest cell, two blanks between them; cells are made printable. A table wider than `width`
// is folded into several below each other, each with the keys; where a column and the keys are too wide even so, their
// cells are shortened. Rows may have fewer cells than others.
std::string text_table(const std::vector<std::vector<std::string>>& rows, const TableLayout& layout);

// A field of a CSV file, its bytes as they are: quoted where it needs to be (RFC 4180).
std::string csv_field(const std::string& text);

}  // namespace retort
