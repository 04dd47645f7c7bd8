// JSON as text. Names from files and command lines may be no UTF-8, JSON must be: each such byte is written as U+FFFD,
// so that a folder's name cannot keep results from being written.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace retort {

// `indent` blanks a level; below 0: on one line.
template <typename Json>
std::string json_text(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace retort
