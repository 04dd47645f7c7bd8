// What every program needs before it can train or evaluate: the device, the data on it, and a network, as a config
// describes them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/loader.h"
#include "distill/config.h"
#include "distill/evaluate.h"
#include "models/model.h"

namespace retort {

// "auto" is the first CUDA device where there is one, else the CPU. Throws Error where a named device is not there.
Device resolve_device(const std::string& name);
Device resolve_device(const TrainConfig& config);  // the same, with the place of `device` in errors

// The type of activations and the arithmetic that `precision` and `strict_math` stand for.
struct Arithmetic {
  DType dtype = DType::f32;
  Math math = Math::standard;
};
Arithmetic arithmetic_of(const std::string& precision);
Arithmetic arithmetic_of(const TrainConfig& config);

struct Session {
  Device device;
  Arithmetic arithmetic;
  std::vector<std::string> class_names;
  DeviceData train_data;  // training and validation images
  DeviceData test_data;
  std::vector<std::int32_t> train, validation;  // positions in train_data
  std::vector<std::int32_t> test;               // positions in test_data: all
  kernels::AugmentParams augment;               // training
  kernels::AugmentParams preprocessing;         // validation and test: normalisation only
  std::int64_t height = 0, width = 0;           // of the networks' input
  std::int64_t classes = 0;

  EvaluateOptions evaluate_options() const;
};

// Loads, splits and uploads the data. What the images show to be impossible in the config is an Error that begins with
// the place of the key, before anything is uploaded.
Session make_session(const TrainConfig& config);

// What [model] says of a network for these images.
ModelSpec model_spec(const TrainConfig& config, const Session& session);

// Builds the network of [model] on the session's device and fills it at random. Throws Error, before anything is
// allocated, where the device has not got the memory that it takes: see distill/memory_need.h.
enum class NetworkUse : std::uint8_t { training, evaluation };
std::unique_ptr<Model> make_network(const TrainConfig& config, const Session& session,
                                    NetworkUse use = NetworkUse::training);

// Loads model.init, evaluates it on the test images and prints the result; nothing is trained and no run is made. With
// `logits_path`, writes the logits, f32 [images, classes] in file order, as the safetensors array "logits".
void evaluate_weights(const TrainConfig& config, const std::string& logits_path = "");

// What a checkpoint says about itself, so that other programs can rebuild the network and its input from it.
std::map<std::string, std::string> checkpoint_metadata(const Model& model, const Session& session,
                                                       const TrainConfig& config);

// Reads weights into the network; `file` is a safetensors file of ours or of PyTorch tools. Names that begin with one
// of `skip` keep their values. Throws Error, one line.
void load_weights(Model& model, const std::string& file, const std::vector<std::string>& skip = {});

}  // namespace retort
