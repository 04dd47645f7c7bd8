// An untrained resnet8 for the set `shapes`, as a file.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engine/safetensors.h"
#include "models/model.h"

namespace retort::test {

inline std::unique_ptr<Model> untrained_resnet8() {
  ModelSpec spec;
  spec.arch = "resnet8";
  spec.classes = 20;
  std::unique_ptr<Model> model = make_model(spec);
  model->parameters().materialize({}, DType::f32, 3);
  return model;
}

// All that a checkpoint says about itself; classes are called "thing 0" to "thing 19".
inline std::map<std::string, std::string> resnet8_metadata() {
  std::map<std::string, std::string> metadata{{"arch", "resnet8"},
                                              {"classes", "20"},
                                              {"stem", "cifar"},
                                              {"shortcut", "projection"},
                                              {"dataset", "shapes"},
                                              {"input_size", "32 32"},
                                              {"normalize_mean", "0.4 0.5 0.6"},
                                              {"normalize_std", "0.2 0.25 0.3"}};
  for (int k = 0; k < 20; ++k) metadata["class_names"] += "thing " + std::to_string(k) + "\n";
  return metadata;
}

}  // namespace retort::test
