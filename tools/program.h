// What all programs share: one clear line on stderr and exit code 1 for errors, 2 for wrong usage.
#pragma once

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>

namespace retort::tools {

// --help prints the help and gives 0; a mistake prints one line and gives 2.
inline int usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
  fmt::print(stderr, "{}: {}; see {} --help\n", app.get_name(), error.what(), app.get_name());
  return 2;
}

// Where 0, 1 or 2 is closed, the next file to be opened would get that number, and with it all that is printed.
inline void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    (void)!::open("/dev/null", stream == STDIN_FILENO ? O_RDONLY : O_WRONLY);
  }
}

inline int guarded(const std::function<int()>& program) {
  hold_standard_streams();
  // A reader that has ended and a file beyond its limit are errors of the write that meets them.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    const int code = program();
    const bool lost = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
    if (!lost || code != 0) return code;
    fmt::print(stderr, "error: standard output: cannot be written: is its disk full, or has its reader ended?\n");
    return 1;
  } catch (const std::exception& error) {
    std::fflush(stdout);
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

}  // namespace retort::tools
