// Tables as text: for people in columns, for spreadsheets as CSV.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace retort {

// Columns as wide as their widest cell, two blanks between them; the first `words` to the left, the rest, numbers, to
// the right. Widths count characters, not bytes. Rows may have fewer cells than others.
std::string text_table(const std::vector<std::vector<std::string>>& rows, std::size_t words);

// A field of a CSV file: quoted where it needs to be (RFC 4180).
std::string csv_field(const std::string& text);

}  // namespace retort
