#include "distill/train_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"

namespace retort {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TrainState, step, epoch, epoch_seconds, seconds, stopped_early)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StateRecord::Contents, file, checksum)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LearnerState, loss_sum, samples, metrics, best_top1, best_epoch)

namespace {

constexpr const char* kStateKey = "retort.train_state";
constexpr const char* kLearnersKey = "retort.learners";
constexpr const char* kConfigKey = "retort.config";
constexpr const char* kContentsKey = "retort.contents";
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
  part.ours = file.ours;
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

std::string state_text(const std::string& path, const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(kStateKey);
  check(found != metadata.end(), "{}: is not the state of a training run (no \"{}\" in its metadata)", path, kStateKey);
  return found->second;
}

TrainState parse_state(const std::string& path, const std::string& text, int batch_size) {
  const nlohmann::json json = nlohmann::json::parse(text);
  TrainState state = json.get<TrainState>();
  // Earlier versions counted batches.
  state.batch = json.contains("batch") ? json.at("batch").get<std::int64_t>()
                                       : json.at("samples").get<std::int64_t>() / batch_size;
  state.cut_short = json.value("cut_short", false);
  check(state.step >= 0 && state.epoch >= 0 && state.batch >= 0, "{}: the metadata \"{}\" is damaged", path, kStateKey);
  return state;
}

[[noreturn]] void fail_damaged(const std::string& path, const nlohmann::json::exception& error) {
  fail("{}: the metadata \"{}\" is damaged: {}", path, kStateKey, error.what());
}

}  // namespace

void save_train_state(const std::string& path, const TrainState& state, const std::vector<Learner>& learners,
                      const StateRecord& record) {
  std::vector<NamedArray> arrays;
  nlohmann::json states = nlohmann::json::object();
  for (const Learner& learner : learners) {
    append_store(arrays, learner.model->parameters(), learner.optimizer.get(), learner.state_prefix());
    if (const ParameterStore* const parts = kept_parts(learner)) {
      append_store(arrays, *parts, learner.parts_optimizer.get(), learner.state_prefix() + kParts);
    }
    states[learner.name] = learner.state;
    states[learner.name]["best_step"] = learner.state.best_step;
  }
  const ModelSpec& spec = learners.at(0).model->spec();
  nlohmann::json position = state;
  position["samples"] = state.batch * learners[0].config.data.batch_size;
  if (state.cut_short) position["cut_short"] = true;
  const auto replace = nlohmann::json::error_handler_t::replace;  // paths may hold any bytes
  write_safetensors(path, arrays,
                    {{kStateKey, position.dump()},
                     {kLearnersKey, states.dump()},
                     {kConfigKey, record.config},
                     {kContentsKey, nlohmann::json(record.contents).dump(-1, ' ', false, replace)},
                     {"arch", spec.arch},
                     {"classes", std::to_string(spec.classes)}});
}

TrainState load_train_state(const std::string& path, std::vector<Learner>& learners) {
  WeightFile file = read_safetensors(path);
  TrainState state;
  try {
    state = parse_state(path, state_text(path, file.metadata), learners.at(0).config.data.batch_size);
    const nlohmann::json states = nlohmann::json::parse(file.metadata_or(kLearnersKey, "{}"));
    for (Learner& learner : learners) {
      check(states.contains(learner.name), "{}: knows no student \"{}\"; the config has changed since", path,
            learner.name);
      learner.state = states.at(learner.name).get<LearnerState>();
      learner.state.best_step = states.at(learner.name).value("best_step", std::int64_t{-1});
    }
    check(states.size() == learners.size(), "{}: is of {} students, the config has {}", path, states.size(),
          learners.size());
  } catch (const nlohmann::json::exception& error) {
    fail_damaged(path, error);
  }
  for (Learner& learner : learners) {
    restore(learner, learner.name.empty() ? std::move(file) : take(file, learner.state_prefix()));
  }
  return state;
}

StateHeader read_state_header(const std::string& path, int batch_size) {
  const std::map<std::string, std::string> metadata = read_safetensors_metadata(path);
  const auto text = [&](const char* key, const char* fallback) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string(fallback) : found->second;
  };
  StateHeader header;
  try {
    header.state = parse_state(path, state_text(path, metadata), batch_size);
    header.record.config = text(kConfigKey, "");
    header.record.contents =
        nlohmann::json::parse(text(kContentsKey, "{}")).get<std::map<std::string, StateRecord::Contents>>();
  } catch (const nlohmann::json::exception& error) {
    fail_damaged(path, error);
  }
  return header;
}

}  // namespace retort
