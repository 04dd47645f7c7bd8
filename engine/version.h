// Retort's version, "0.2.0": what --version prints, checkpoints and run.json record, and find_package(retort) compares.
// It is set in the project's CMakeLists.txt and nowhere else.
#pragma once

namespace retort {

const char* version();

}  // namespace retort
