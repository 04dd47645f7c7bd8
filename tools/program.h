// What all programs share: one clear line on stderr and exit code 1 for errors, 2 for wrong usage. Results that could
// not be printed are an error too.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <sstream>

#include "engine/terminal.h"

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

inline int guarded(const std::function<int()>& program) {
  try {
    return ended(program());
  } catch (const std::exception& error) {
    complain("error: {}", error.what());
    return 1;
  }
}

}  // namespace retort::tools
