#include "models/model.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "engine/suggest.h"
#include "models/resnet.h"

namespace retort {

void Model::check_taps(const TapNames& taps) const {
  const std::vector<std::string> known = tap_names();
  for (const std::string& tap : taps) {
    check(std::find(known.begin(), known.end(), tap) != known.end(), "{}: no tap \"{}\"; there are {}", spec_.arch, tap,
          fmt::join(known, ", "));
  }
}

NamedTensors Model::constants() const {
  NamedTensors all;
  for (const auto& parameter : store_.parameters()) all.emplace_back(parameter->name, parameter->data);
  for (const auto& buffer : store_.buffers()) all.emplace_back(buffer->name, buffer->value);
  all.insert(all.end(), store_.folded_constants().begin(), store_.folded_constants().end());
  return all;
}

std::vector<std::string> architecture_names() {
  return resnet_names();
}

std::unique_ptr<Model> make_model(const ModelSpec& spec) {
  check(spec.classes >= 1, "model: {} classes", spec.classes);
  if (auto model = make_resnet(spec)) return model;
  fail("model: unknown arch \"{}\"{}; known: {}", spec.arch, did_you_mean(spec.arch, architecture_names()),
       fmt::join(architecture_names(), ", "));
}

}  // namespace retort
