#include "engine/text.h"

#include <locale.h>
#include <wchar.h>

#include <algorithm>

namespace retort {
namespace {

struct Character {
  char32_t code = 0;
  std::size_t bytes = 1;
  bool valid = false;
};

// The character that UTF-8 begins with; one invalid byte where it is none. After RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF.
Character first_of(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return {};
  char32_t code = lead & (0xffU >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3f);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  if (code < kSmallest[bytes] || surrogate || code > 0x10ffff) return {};
  return {code, bytes, true};
}

bool is_control(char32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

// The line and paragraph separators and what turns the direction of writing: names that use them look like others.
bool is_disguise(char32_t code) {
  return (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0x200e || code == 0x200f ||
         code == 0x061c || code == 0xfeff;
}

std::string replaced(std::string_view text, bool escape, bool keep_newlines) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character c = first_of(text);
    if (!c.valid) {
      out += "\uFFFD";
    } else if (!escape || (!is_control(c.code) && !is_disguise(c.code)) || (keep_newlines && c.code == '\n')) {
      out += text.substr(0, c.bytes);
    } else {
      out += c.code < 0x80 ? fmt::format("\\x{:02x}", static_cast<unsigned>(c.code))
                           : fmt::format("\\u{:04x}", static_cast<unsigned>(c.code));
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

// The C library's table for UTF-8, whatever locale the program runs in.
std::size_t columns_of(char32_t code) {
  if (code < 0x80) return 1;
  static const locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (utf8 == nullptr) return 1;
  const locale_t before = uselocale(utf8);
  const int columns = wcwidth(static_cast<wchar_t>(code));
  uselocale(before);
  return columns < 0 ? 1 : static_cast<std::size_t>(columns);
}

// How many bytes of the text fit.
std::size_t fitting(std::string_view text, std::size_t width) {
  std::size_t at = 0;
  for (std::size_t used = 0; at < text.size();) {
    const Character c = first_of(text.substr(at));
    used += columns_of(c.code);
    if (used > width) break;
    at += c.bytes;
  }
  return at;
}

std::string folded_line(std::string_view line, std::size_t width, std::size_t indent) {
  if (width == kWhole || display_width(line) <= width) return std::string(line);
  const std::string margin(indent < width / 2 ? indent : std::min<std::size_t>(2, width / 4), ' ');
  std::string out;
  std::size_t column = 0;
  bool fresh = true;  // nothing but a margin is on this row
  const auto next_row = [&] {
    out += "\n" + margin;
    column = margin.size();
    fresh = true;
  };
  while (!line.empty()) {
    std::size_t blanks = std::min(line.find_first_not_of(' '), line.size());
    std::string_view word = line.substr(blanks, line.find(' ', blanks) - blanks);
    line.remove_prefix(blanks + word.size());
    if (word.empty()) break;
    if (fresh && blanks >= width / 2) blanks = margin.size();  // an indent that would leave no room
    if (!fresh && column + blanks + display_width(word) > width) {
      next_row();
    } else {
      out.append(blanks, ' ');
      column += blanks;
    }
    while (column + display_width(word) > width) {
      std::size_t bytes = column < width ? fitting(word, width - column) : 0;
      if (bytes == 0 && fresh) bytes = first_of(word).bytes;  // wider than the row: it has to go somewhere
      out += word.substr(0, bytes);
      word.remove_prefix(bytes);
      if (word.empty()) break;
      next_row();
    }
    out += word;
    column += display_width(word);
    fresh = false;
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) {
  return replaced(text, true, false);
}

std::string printable_lines(std::string_view text) {
  return replaced(text, true, true);
}

std::string valid_utf8(std::string_view text) {
  return replaced(text, false, true);
}

std::size_t display_width(std::string_view text) {
  std::size_t columns = 0;
  while (!text.empty()) {
    const Character c = first_of(text);
    columns += columns_of(c.code);
    text.remove_prefix(c.bytes);
  }
  return columns;
}

std::string shortened(std::string_view text, std::size_t width) {
  if (display_width(text) <= width) return std::string(text);
  return width == 0 ? "" : std::string(text.substr(0, fitting(text, width - 1))) + "…";
}

std::string padded(std::string_view text, std::size_t width, bool left) {
  const std::string space(width - std::min(width, display_width(text)), ' ');
  return left ? std::string(text) + space : space + std::string(text);
}

std::string folded(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    out += folded_line(text.substr(begin, end - begin), width, indent);
    if (end < text.size()) out += '\n';
    begin = end + 1;
  }
  return out;
}

}  // namespace retort
