#include "distill/train_state.h"

#include <nlohmann/json.hpp>

#include "engine/safetensors.h"

namespace retort {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TrainState, step, epoch, batch, loss_sum, samples, metrics, epoch_seconds, best_top1,
                                   best_epoch, last_evaluated_epoch, seconds, training_done)

namespace {
constexpr const char* kStateKey = "retort.train_state";
}

void save_train_state(const std::string& path, const TrainState& state, const Model& model,
                      const Optimizer& optimizer) {
  std::vector<NamedArray> arrays = model.parameters().to_arrays();
  optimizer.append_state(arrays);
  write_safetensors(path, arrays,
                    {{kStateKey, nlohmann::json(state).dump()},
                     {"arch", model.spec().arch},
                     {"classes", std::to_string(model.spec().classes)}});
}

TrainState load_train_state(const std::string& path, Model& model, Optimizer& optimizer) {
  SafetensorsFile file = read_safetensors(path);
  const std::string text = file.metadata_or(kStateKey, "");
  check(!text.empty(), "{}: is not the state of a training run (no \"{}\" in its metadata)", path, kStateKey);
  TrainState state;
  try {
    state = nlohmann::json::parse(text).get<TrainState>();
  } catch (const nlohmann::json::exception& error) {
    fail("{}: the metadata \"{}\" is damaged: {}", path, kStateKey, error.what());
  }
  optimizer.read_state(file);
  std::erase_if(file.arrays, [](const NamedArray& a) { return a.name.starts_with(Optimizer::kStatePrefix); });
  LoadOptions options;
  options.arch = model.spec().arch;
  options.classes = static_cast<int>(model.spec().classes);
  model.parameters().load(file, options);
  return state;
}

}  // namespace retort
