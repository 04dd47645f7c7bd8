#include "engine/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/error.h"

namespace retort {
namespace {

constexpr std::size_t kUsualWidth = 80;

int first_error = 0;

void remember_error() {
  if (first_error == 0) first_error = errno != 0 ? errno : EIO;
}

}  // namespace

bool output_is_terminal() {
  return isatty(STDOUT_FILENO) == 1;
}

std::size_t output_width() {
  if (!output_is_terminal()) return kWhole;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* const columns = std::getenv("COLUMNS");
  if (columns == nullptr) return kUsualWidth;
  std::size_t width = 0;
  const char* const end = columns + std::strlen(columns);
  const auto parsed = std::from_chars(columns, end, width);
  return parsed.ec == std::errc() && parsed.ptr == end && width > 0 ? width : kUsualWidth;
}

bool output_redraws() {
  const char* const kind = std::getenv("TERM");
  return output_is_terminal() && kind != nullptr && *kind != '\0' && std::strcmp(kind, "dumb") != 0;
}

void write_output(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return;
  remember_error();
  fail("standard output: cannot be written: {}", std::strerror(first_error));
}

int output_error() {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) remember_error();
  return first_error;
}

}  // namespace retort
