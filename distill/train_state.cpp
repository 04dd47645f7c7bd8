#include "distill/train_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"

namespace retort {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TrainState, step, epoch, batch, epoch_seconds, seconds, stopped_early)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LearnerState, loss_sum, samples, metrics, best_top1, best_epoch)

namespace {

constexpr const char* kStateKey = "retort.train_state";
constexpr const char* kLearnersKey = "retort.learners";
// Of the losses' trainable parts and buffers and of their optimizer.
constexpr const char* kParts = "loss.";

void append(std::vector<NamedArray>& all, std::vector<NamedArray> arrays, const std::string& prefix) {
  for (NamedArray& array : arrays) {
    array.name = prefix + array.name;
    all.push_back(std::move(array));
  }
}

// `optimizer` may be null, for a store without parameters.
void append_store(std::vector<NamedArray>& all, const ParameterStore& store, const Optimizer* optimizer,
                  const std::string& prefix) {
  append(all, store.to_arrays(), prefix);
  if (optimizer == nullptr) return;
  std::vector<NamedArray> moments;
  optimizer->append_state(moments);
  append(all, std::move(moments), prefix);
}

// The arrays whose names begin with `prefix`, without it; they leave `file`.
WeightFile take(WeightFile& file, const std::string& prefix) {
  WeightFile part;
  part.path = file.path;
  part.metadata = file.metadata;
  const auto mine = std::stable_partition(file.arrays.begin(), file.arrays.end(),
                                          [&](const NamedArray& a) { return !a.name.starts_with(prefix); });
  for (auto array = mine; array != file.arrays.end(); ++array) {
    array->name.erase(0, prefix.size());
    part.arrays.push_back(std::move(*array));
  }
  file.arrays.erase(mine, file.arrays.end());
  return part;
}

void restore(ParameterStore& store, Optimizer* optimizer, WeightFile file, const LoadOptions& options) {
  if (optimizer != nullptr) optimizer->read_state(file);
  std::erase_if(file.arrays, [](const NamedArray& a) { return a.name.starts_with(Optimizer::kStatePrefix); });
  store.load(file, options);
}

// Parts and buffers of the losses, or null where they have neither.
ParameterStore* kept_parts(const Learner& learner) {
  ParameterStore* const parts = learner.objective->parts();
  return parts != nullptr && (!parts->parameters().empty() || !parts->buffers().empty()) ? parts : nullptr;
}

void restore(Learner& learner, WeightFile file) {
  WeightFile parts = take(file, kParts);
  ParameterStore* const wanted = kept_parts(learner);
  check(wanted != nullptr || parts.arrays.empty(), "{}: holds trainable parts of losses that the config does not have",
        file.path);
  LoadOptions options;
  options.arch = learner.model->spec().arch;
  options.classes = static_cast<int>(learner.model->spec().classes);
  // Several learners of one file are of several networks: their arrays tell.
  if (!learner.name.empty()) file.metadata.clear();
  restore(learner.model->parameters(), learner.optimizer.get(), std::move(file), options);
  parts.metadata.clear();
  if (wanted != nullptr) restore(*wanted, learner.parts_optimizer.get(), std::move(parts), {});
}

}  // namespace

void save_train_state(const std::string& path, const TrainState& state, const std::vector<Learner>& learners) {
  std::vector<NamedArray> arrays;
  nlohmann::json states = nlohmann::json::object();
  for (const Learner& learner : learners) {
    append_store(arrays, learner.model->parameters(), learner.optimizer.get(), learner.state_prefix());
    if (const ParameterStore* const parts = kept_parts(learner)) {
      append_store(arrays, *parts, learner.parts_optimizer.get(), learner.state_prefix() + kParts);
    }
    states[learner.name] = learner.state;
  }
  const ModelSpec& spec = learners.at(0).model->spec();
  write_safetensors(path, arrays,
                    {{kStateKey, nlohmann::json(state).dump()},
                     {kLearnersKey, states.dump()},
                     {"arch", spec.arch},
                     {"classes", std::to_string(spec.classes)}});
}

TrainState load_train_state(const std::string& path, std::vector<Learner>& learners) {
  WeightFile file = read_safetensors(path);
  const std::string text = file.metadata_or(kStateKey, "");
  check(!text.empty(), "{}: is not the state of a training run (no \"{}\" in its metadata)", path, kStateKey);
  TrainState state;
  try {
    state = nlohmann::json::parse(text).get<TrainState>();
    const nlohmann::json states = nlohmann::json::parse(file.metadata_or(kLearnersKey, "{}"));
    for (Learner& learner : learners) {
      check(states.contains(learner.name), "{}: knows no student \"{}\"; the config has changed since", path,
            learner.name);
      learner.state = states.at(learner.name).get<LearnerState>();
    }
    check(states.size() == learners.size(), "{}: is of {} students, the config has {}", path, states.size(),
          learners.size());
  } catch (const nlohmann::json::exception& error) {
    fail("{}: the metadata \"{}\" is damaged: {}", path, kStateKey, error.what());
  }
  for (Learner& learner : learners) {
    restore(learner, learner.name.empty() ? std::move(file) : take(file, learner.state_prefix()));
  }
  return state;
}

}  // namespace retort
