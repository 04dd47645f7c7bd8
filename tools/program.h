// What all programs share: one clear line on stderr and exit code 1 for errors, 2 for wrong usage.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
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

inline int guarded(const std::function<int()>& program) {
  try {
    return program();
  } catch (const std::exception& error) {
    std::fflush(stdout);
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

}  // namespace retort::tools
