// The config of a training run: typed fields with their defaults, read from TOML and written back to it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distill/config_reader.h"
#include "engine/optimizer.h"
#include "engine/schedule.h"

namespace retort {

// One step of `augment`: "flip", or {name = "crop", padding = 4}. Options: see data/augment_config.h.
struct AugmentEntry {
  std::string name;
  std::map<std::string, std::vector<double>> options;  // those given; a pair such as `scale` has two values

  double option(const std::string& key, double fallback, std::size_t index = 0) const;
  bool operator==(const AugmentEntry&) const = default;
};

// A preset by name, or with `preset` empty the values themselves, for pixels in [0, 1].
struct NormalizeConfig {
  std::string preset = "imagenet";
  std::array<double, 3> mean{}, std{};  // filled in from a preset too

  bool operator==(const NormalizeConfig&) const = default;
};

struct DataConfig {
  std::string dataset = "cifar100";
  std::string root;                      // "": $RETORT_DATASETS, else datasets/
  double validation = 0.1;               // below 1 a fraction of the training images, from 1 on their number
  std::vector<std::string> train_files;  // empty: all files of the set
  double fraction = 1;                   // of the training images that are left, for low-data runs
  bool shuffle = true;
  int batch_size = 128;
  std::vector<AugmentEntry> augment;
  NormalizeConfig normalize;

  bool operator==(const DataConfig&) const = default;
};

struct ModelConfig {
  std::string arch = "resnet18";
  std::string stem = "cifar";
  std::string shortcut = "projection";
  int classes = 0;  // 0: those of the data set
  std::string
      init;  // a safetensors file; "": random; when distilling "teacher" or "teacher:N" copies what fits from it
  std::vector<std::string> init_skip;    // names that begin so are not read from init: ["fc."] for other classes
  std::vector<std::string> drop_blocks;  // of the teacher, with init = "teacher": ["layer1.1"]; later ones move up
  std::vector<std::string> freeze;       // parameters whose names begin so are not trained
  bool zero_init_residual = false;

  bool operator==(const ModelConfig&) const = default;
};

struct OptimizerConfig {
  std::string type = "sgd";  // sgd, adam, adamw
  double lr = 0.1;           // where not given: 0.1 for sgd, 0.001 for adam and adamw
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0;
  std::string decay = "weights";  // what decays: "weights" (convolution and linear weights) or "all"
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

  bool operator==(const OptimizerConfig&) const = default;
};

// See engine/schedule.h.
struct ScheduleConfig {
  std::string type = "constant";  // constant, cosine, step, milestones, cosine_restarts
  double warmup_epochs = 0;
  int step_epochs = 0;
  double gamma = 0.1;
  std::vector<int> milestones;  // epochs
  int t_0 = 0, t_mult = 1;      // epochs
  double min_lr = 0;

  bool operator==(const ScheduleConfig&) const = default;
};

struct LoopConfig {
  int epochs = 1;
  std::int64_t max_steps = 0;  // 0: no limit but the epochs
  double label_smoothing = 0;
  double clip_grad_norm = 0;       // 0: off
  int early_stop_patience = 0;     // epochs without a better validation accuracy; 0: off
  int evaluate_every = 1;          // epochs
  bool evaluate_test = true;       // at the end, for the last and the best checkpoint
  double checkpoint_minutes = 10;  // the run's state is saved so often within an epoch too; 0: at its end only

  bool operator==(const LoopConfig&) const = default;
};

struct TrainConfig {
  std::string name;  // of the run; where not given, the config file's without its ending
  std::uint64_t seed = 1;
  std::string device = "auto";    // auto, cpu, cuda, cuda:N
  std::string precision = "f32";  // f64, f32, tf32, bf16
  bool strict_math = false;       // plain f32 multiply-add, no Winograd: for exact comparisons
  DataConfig data;
  ModelConfig model;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  LoopConfig train;
  std::string output_root = "runs";

  bool operator==(const TrainConfig&) const = default;
};

// Throws Error, one line with file and line number, for anything unknown, mistyped or impossible.
TrainConfig load_train_config(const std::string& path, const std::vector<std::string>& overrides = {});
TrainConfig train_config_of(const ConfigValue& tree, const std::string& default_name);

// The parts, for other programs' configs: reads the keys of a training run from the top level, which the caller
// finishes after reading its own.
TrainConfig read_train_config(ConfigSection& top, const std::string& default_name);

// Every field, defaults included; load_train_config() of the text gives an equal TrainConfig.
std::string to_toml(const TrainConfig& config);
ConfigTable to_table(const TrainConfig& config);

// What the engine needs of it.
OptimizerOptions optimizer_options(const TrainConfig& config);
ScheduleOptions schedule_options(const TrainConfig& config);

std::vector<std::string> augment_names();

}  // namespace retort
