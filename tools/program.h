// What all programs share: one clear line on stderr and exit code 1 for errors, 2 for wrong usage. Results that could
// not be printed are an error too.
#pragma once

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <optional>
#include <sstream>
#include <string>

#include "engine/terminal.h"
#include "engine/version.h"

namespace retort::tools {

// A line on stderr, behind what stdout has got so far. Strings are made printable.
template <typename... Args>
void complain(fmt::format_string<Args...> format, Args&&... args) {
  std::fflush(stdout);
  std::fputs((format_printable(format, std::forward<Args>(args)...) + "\n").c_str(), stderr);
}

// The exit code of a program that got so far: not 0 where standard output did not take all that was printed.
inline int ended(int code) {
  const int error = output_error();
  if (error == 0) return code;
  complain("error: standard output: cannot be written: {}", std::strerror(error));
  return code == 0 ? 1 : code;
}

// --help prints the help and gives 0; a mistake prints one line and gives 2. Called inside of guarded().
inline int usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success)) {
    complain("{}: {}; see {} --help", app.get_name(), error.what(), app.get_name());
    return 2;
  }
  std::ostringstream help;
  const int code = app.exit(error, help, help);
  std::fputs(help.str().c_str(), stdout);
  return code;
}

// Where 0, 1 or 2 is closed, the next file to be opened would get that number, and with it all that is printed.
inline void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    (void)!::open("/dev/null", stream == STDIN_FILENO ? O_RDONLY : O_WRONLY);
  }
}

inline std::string version_text() {
  return fmt::format("Retort {}", version());
}

// Parses, --version included; the exit code where the program ends with that: help, version or a mistake. `checks` may
// throw CLI's errors for what its rules cannot say.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv, const std::function<void()>& checks = {}) {
  if (app.get_option_no_throw("--version") == nullptr) app.set_version_flag("--version", version_text());
  try {
    app.parse(argc, argv);
    if (checks) checks();
  } catch (const CLI::ParseError& error) {
    return usage(app, error);
  }
  return std::nullopt;
}

inline int guarded(const std::function<int()>& program) {
  hold_standard_streams();
  // A reader that has ended and a file beyond its limit are errors of the write that meets them.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return ended(program());
  } catch (const std::exception& error) {
    complain("error: {}", error.what());
    return 1;
  }
}

}  // namespace retort::tools
