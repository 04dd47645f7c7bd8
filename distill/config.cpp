#include "distill/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "distill/config_data.h"
#include "models/model.h"

namespace retort {
namespace {

void read_device(ConfigSection& top, std::string& device) {
  top.read("device", device);
  if (device == "auto" || device == "cpu" || device == "cuda") return;
  const std::string number = device.starts_with("cuda:") ? device.substr(5) : "";
  if (number.empty() || number.size() > 3 || !std::all_of(number.begin(), number.end(), ::isdigit)) {
    top.reject("device", "expected auto, cpu, cuda or cuda:N");
  }
}

void read_name(ConfigSection& top, std::string& name) {
  top.read("name", name);
  const auto usable = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  if (name.empty() || name.size() > 100 || name[0] == '.' || !std::all_of(name.begin(), name.end(), usable)) {
    top.reject("name", "names a folder: expected letters, digits, '-', '_' and '.', not beginning with '.'");
  }
}

ModelConfig read_model(ConfigSection section) {
  ModelConfig c;
  section.read_choice("arch", c.arch, architecture_names());
  section.read_choice("stem", c.stem, {"cifar", "imagenet"});
  section.read_choice("shortcut", c.shortcut, {"projection", "pad"});
  section.read("classes", c.classes, Range::at_least(0));
  section.read("init", c.init);
  section.read("zero_init_residual", c.zero_init_residual);
  section.finish();
  return c;
}

OptimizerConfig read_optimizer(ConfigSection section) {
  OptimizerConfig c;
  section.read_choice("type", c.type, {"sgd", "adam", "adamw"});
  const bool sgd = c.type == "sgd";
  if (!sgd) c.lr = 1e-3;
  section.read("lr", c.lr, Range::above(0));
  section.read("momentum", c.momentum, Range::half_open(0, 1));
  section.read("nesterov", c.nesterov);
  if (c.nesterov && !sgd) section.reject("nesterov", fmt::format("{} has no Nesterov momentum", c.type));
  if (c.nesterov && c.momentum == 0) section.reject("nesterov", "needs a momentum above 0");
  section.read("weight_decay", c.weight_decay, Range::at_least(0));
  section.read_choice("decay", c.decay, {"weights", "all"});
  section.read("beta1", c.beta1, Range::half_open(0, 1));
  section.read("beta2", c.beta2, Range::half_open(0, 1));
  section.read("epsilon", c.epsilon, Range::above(0));
  section.finish();
  return c;
}

ScheduleConfig read_schedule(ConfigSection section, double lr) {
  ScheduleConfig c;
  section.read_choice("type", c.type, {"constant", "cosine", "step", "milestones", "cosine_restarts"});
  section.read("warmup_epochs", c.warmup_epochs, Range::at_least(0));
  section.read("step_epochs", c.step_epochs, Range::at_least(1));
  section.read("gamma", c.gamma, Range::above(0));
  section.read("milestones", c.milestones, Range::at_least(1));
  section.read("t_0", c.t_0, Range::at_least(1));
  section.read("t_mult", c.t_mult, Range::at_least(1));
  section.read("min_lr", c.min_lr, Range::at_least(0));
  if (c.min_lr > lr) section.reject("min_lr", fmt::format("is above the learning rate, {}", lr));
  if (c.type == "step" && c.step_epochs == 0) section.reject("type", "needs step_epochs");
  if (c.type == "cosine_restarts" && c.t_0 == 0) section.reject("type", "needs t_0");
  if (c.type == "milestones" && c.milestones.empty()) section.reject("type", "needs milestones");
  if (std::adjacent_find(c.milestones.begin(), c.milestones.end(), std::greater_equal<>()) != c.milestones.end()) {
    section.reject("milestones", "must be ascending");
  }
  section.finish();
  return c;
}

LoopConfig read_loop(ConfigSection section) {
  LoopConfig c;
  section.read("epochs", c.epochs, Range::at_least(1));
  section.read("max_steps", c.max_steps, Range::at_least(0));
  section.read("label_smoothing", c.label_smoothing, Range::half_open(0, 1));
  section.read("clip_grad_norm", c.clip_grad_norm, Range::at_least(0));
  section.read("early_stop_patience", c.early_stop_patience, Range::at_least(0));
  section.read("evaluate_every", c.evaluate_every, Range::at_least(1));
  section.read("evaluate_test", c.evaluate_test);
  section.finish();
  return c;
}

ConfigValue value(auto v) {
  ConfigValue out;
  out.data = std::move(v);
  return out;
}
ConfigValue value(int v) {
  return value(std::int64_t{v});
}

template <typename T>
ConfigValue list(const std::vector<T>& values) {
  ConfigArray out;
  for (const T& v : values) out.push_back(value(v));
  return value(std::move(out));
}

}  // namespace

TrainConfig read_train_config(ConfigSection& top, const std::string& default_name) {
  TrainConfig c;
  c.name = default_name;
  read_name(top, c.name);
  top.read("seed", c.seed);
  read_device(top, c.device);
  top.read_choice("precision", c.precision, {"f64", "f32", "tf32", "bf16"});
  top.read("strict_math", c.strict_math);
  c.data = read_data_config(top.section("data"));
  c.model = read_model(top.section("model"));
  c.optimizer = read_optimizer(top.section("optimizer"));
  c.schedule = read_schedule(top.section("schedule"), c.optimizer.lr);
  c.train = read_loop(top.section("train"));
  ConfigSection output = top.section("output");
  output.read("root", c.output_root);
  if (c.output_root.empty()) output.reject("root", "expected a folder");
  output.finish();
  return c;
}

TrainConfig train_config_of(const ConfigValue& tree, const std::string& default_name) {
  ConfigSection top(tree, "");
  TrainConfig config = read_train_config(top, default_name);
  top.finish();
  return config;
}

TrainConfig load_train_config(const std::string& path, const std::vector<std::string>& overrides) {
  return train_config_of(load_config_tree(path, overrides), std::filesystem::path(path).stem().string());
}

ConfigTable to_table(const TrainConfig& c) {
  ConfigTable model{{"arch", value(c.model.arch)},         {"stem", value(c.model.stem)},
                    {"shortcut", value(c.model.shortcut)}, {"classes", value(c.model.classes)},
                    {"init", value(c.model.init)},         {"zero_init_residual", value(c.model.zero_init_residual)}};
  ConfigTable optimizer{{"type", value(c.optimizer.type)},
                        {"lr", value(c.optimizer.lr)},
                        {"momentum", value(c.optimizer.momentum)},
                        {"nesterov", value(c.optimizer.nesterov)},
                        {"weight_decay", value(c.optimizer.weight_decay)},
                        {"decay", value(c.optimizer.decay)},
                        {"beta1", value(c.optimizer.beta1)},
                        {"beta2", value(c.optimizer.beta2)},
                        {"epsilon", value(c.optimizer.epsilon)}};
  ConfigTable schedule{{"type", value(c.schedule.type)},     {"warmup_epochs", value(c.schedule.warmup_epochs)},
                       {"gamma", value(c.schedule.gamma)},   {"milestones", list(c.schedule.milestones)},
                       {"t_mult", value(c.schedule.t_mult)}, {"min_lr", value(c.schedule.min_lr)}};
  // 0 stands for "not given" and may not be written.
  if (c.schedule.step_epochs > 0) schedule.emplace("step_epochs", value(c.schedule.step_epochs));
  if (c.schedule.t_0 > 0) schedule.emplace("t_0", value(c.schedule.t_0));
  ConfigTable train{{"epochs", value(c.train.epochs)},
                    {"max_steps", value(c.train.max_steps)},
                    {"label_smoothing", value(c.train.label_smoothing)},
                    {"clip_grad_norm", value(c.train.clip_grad_norm)},
                    {"early_stop_patience", value(c.train.early_stop_patience)},
                    {"evaluate_every", value(c.train.evaluate_every)},
                    {"evaluate_test", value(c.train.evaluate_test)}};
  return {{"name", value(c.name)},
          {"seed", value(static_cast<std::int64_t>(c.seed))},
          {"device", value(c.device)},
          {"precision", value(c.precision)},
          {"strict_math", value(c.strict_math)},
          {"data", value(to_table(c.data))},
          {"model", value(std::move(model))},
          {"optimizer", value(std::move(optimizer))},
          {"schedule", value(std::move(schedule))},
          {"train", value(std::move(train))},
          {"output", value(ConfigTable{{"root", value(c.output_root)}})}};
}

std::string to_toml(const TrainConfig& config) {
  return to_toml(to_table(config));
}

}  // namespace retort
