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
  section.read("init_skip", c.init_skip);
  section.read("drop_blocks", c.drop_blocks);
  section.read("freeze", c.freeze);
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
  section.read("checkpoint_minutes", c.checkpoint_minutes, Range::at_least(0));
  section.finish();
  return c;
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
  ConfigTable model{
      {"arch", config_value(c.model.arch)},          {"stem", config_value(c.model.stem)},
      {"shortcut", config_value(c.model.shortcut)},  {"classes", config_value(c.model.classes)},
      {"init", config_value(c.model.init)},          {"zero_init_residual", config_value(c.model.zero_init_residual)},
      {"init_skip", config_list(c.model.init_skip)}, {"drop_blocks", config_list(c.model.drop_blocks)},
      {"freeze", config_list(c.model.freeze)}};
  ConfigTable optimizer{{"type", config_value(c.optimizer.type)},
                        {"lr", config_value(c.optimizer.lr)},
                        {"momentum", config_value(c.optimizer.momentum)},
                        {"nesterov", config_value(c.optimizer.nesterov)},
                        {"weight_decay", config_value(c.optimizer.weight_decay)},
                        {"decay", config_value(c.optimizer.decay)},
                        {"beta1", config_value(c.optimizer.beta1)},
                        {"beta2", config_value(c.optimizer.beta2)},
                        {"epsilon", config_value(c.optimizer.epsilon)}};
  ConfigTable schedule{
      {"type", config_value(c.schedule.type)},     {"warmup_epochs", config_value(c.schedule.warmup_epochs)},
      {"gamma", config_value(c.schedule.gamma)},   {"milestones", config_list(c.schedule.milestones)},
      {"t_mult", config_value(c.schedule.t_mult)}, {"min_lr", config_value(c.schedule.min_lr)}};
  // 0 stands for "not given" and may not be written.
  if (c.schedule.step_epochs > 0) schedule.emplace("step_epochs", config_value(c.schedule.step_epochs));
  if (c.schedule.t_0 > 0) schedule.emplace("t_0", config_value(c.schedule.t_0));
  ConfigTable train{{"epochs", config_value(c.train.epochs)},
                    {"max_steps", config_value(c.train.max_steps)},
                    {"label_smoothing", config_value(c.train.label_smoothing)},
                    {"clip_grad_norm", config_value(c.train.clip_grad_norm)},
                    {"early_stop_patience", config_value(c.train.early_stop_patience)},
                    {"evaluate_every", config_value(c.train.evaluate_every)},
                    {"evaluate_test", config_value(c.train.evaluate_test)},
                    {"checkpoint_minutes", config_value(c.train.checkpoint_minutes)}};
  return {{"name", config_value(c.name)},
          {"seed", config_value(c.seed)},
          {"device", config_value(c.device)},
          {"precision", config_value(c.precision)},
          {"strict_math", config_value(c.strict_math)},
          {"data", config_value(to_table(c.data))},
          {"model", config_value(std::move(model))},
          {"optimizer", config_value(std::move(optimizer))},
          {"schedule", config_value(std::move(schedule))},
          {"train", config_value(std::move(train))},
          {"output", config_value(ConfigTable{{"root", config_value(c.output_root)}})}};
}

std::string to_toml(const TrainConfig& config) {
  return to_toml(to_table(config));
}

}  // namespace retort
