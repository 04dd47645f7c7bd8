// Files of weights as other tools write them, made from a network of ours.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/weight_file.h"
#include "models/model.h"
#include "tests/support/files.h"

namespace retort::test {

// Without the keys that Retort's own files have.
inline void write_foreign(const std::string& path, const std::vector<NamedArray>& arrays,
                          const std::map<std::string, std::string>& metadata = {}) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string data;
  for (const NamedArray& array : arrays) {
    const std::size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
    header[array.name] = {
        {"dtype", name_of(array.dtype)}, {"shape", array.shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  write_file(path, std::string(reinterpret_cast<const char*>(&length), sizeof length) + text + data);
}

inline std::unique_ptr<Model> some_network(const std::string& arch, std::int64_t classes = 3, std::uint64_t seed = 7) {
  auto model = make_model({.arch = arch, .classes = classes});
  model->parameters().materialize({}, DType::f32, seed);
  return model;
}

using Renaming = std::function<std::string(const std::string&)>;

inline std::vector<NamedArray> renamed(std::vector<NamedArray> arrays, const Renaming& rename) {
  for (NamedArray& array : arrays) array.name = rename(array.name);
  return arrays;
}

}  // namespace retort::test
