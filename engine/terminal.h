// Standard output: a terminal of some width, or a pipe or file.
#pragma once

#include <cstddef>
#include <string_view>

#include "engine/text.h"

namespace retort {

bool output_is_terminal();
// Columns of the terminal, at least 1: as it says itself, else as COLUMNS says, else 80. Asked anew each time, so that
// a resize is followed. kWhole for a pipe or file: what programs read is not folded.
std::size_t output_width();
// Whether a line can be drawn over: not in a pipe or file, nor where TERM is "dumb" or not set.
bool output_redraws();

// Throws Error where that cannot be written: a full disk, a closed pipe.
void write_output(std::string_view text);
// Flushes; errno of the first write that failed since the program began, or 0. What could not be printed must not pass
// for success: every program asks at its end.
int output_error();

// To standard output, strings from files and arguments made printable. Throws Error as write_output() does.
template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  write_output(format_printable(format, std::forward<Args>(args)...));
}

}  // namespace retort
