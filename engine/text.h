// Text for people: what comes from files and arguments made harmless, measured and folded by the columns of a terminal.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace retort {

inline constexpr std::size_t kWhole = static_cast<std::size_t>(-1);  // a width that nothing is too long for

// On one line, whatever bytes it holds: control characters become \x1b or \u0085, those that turn the direction of
// writing or end a line \u202e, and each byte that is no UTF-8 becomes U+FFFD.
std::string printable(std::string_view text);
// The same for text of several lines: \n stays.
std::string printable_lines(std::string_view text);
// Only what is no UTF-8 is replaced.
std::string valid_utf8(std::string_view text);

// Columns on a terminal, of printable text: "±" is two bytes and one column, "日" takes two, an accent of its own none.
std::size_t display_width(std::string_view text);
// As much of it as fits, the last column an ellipsis where something is left out.
std::string shortened(std::string_view text, std::size_t width);
// With blanks up to `width` columns, behind it or before it.
std::string padded(std::string_view text, std::size_t width, bool left = true);
// Each line broken at blanks into lines of at most `width` columns, all but the first indented (by less where `width`
// is small); words that are longer than a line are broken anywhere. Nothing is left out but the blanks.
std::string folded(std::string_view text, std::size_t width, std::size_t indent);

template <typename T>
decltype(auto) printable_argument(const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return printable(value);
  } else {
    return (value);
  }
}

// fmt::format() with the strings among its arguments made printable.
template <typename... Args>
std::string format_printable(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(fmt::runtime(fmt::string_view(format)), printable_argument(args)...);
}

}  // namespace retort
