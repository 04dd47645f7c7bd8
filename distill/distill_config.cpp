#include "distill/distill_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>

#include "models/model.h"

namespace retort {
namespace {

TeacherConfig read_teacher(ConfigSection& section) {
  TeacherConfig c;
  c.where = section.where() + ": [[teacher]]";
  section.read("path", c.path);
  if (c.path.empty())
    section.reject(
        "needs a path: a run (runs/NAME or NAME), a version of it, a student of one, or a file of weights "
        "(.safetensors, .pth, .onnx)");
  if (section.has("precision")) section.read_choice("precision", c.precision, {"f64", "f32", "tf32", "bf16"});
  section.read("fold", c.fold);
  const bool onnx = std::filesystem::path(c.path).extension() == ".onnx";
  const auto read_unsaid = [&](const char* key, std::string& field, const std::vector<std::string>& choices) {
    if (!section.has(key)) return;
    section.read_choice(key, field, choices);
    if (onnx) section.reject(key, "has no effect: an ONNX file holds the whole network");
  };
  read_unsaid("arch", c.arch, architecture_names());
  read_unsaid("stem", c.stem, {"cifar", "imagenet"});
  read_unsaid("shortcut", c.shortcut, {"projection", "pad"});
  section.finish();
  return c;
}

struct Losses {
  std::vector<LossConfig> losses;
  ConfigArray resolved;
};

Losses read_losses(ConfigSection& top, const DistillConfig& config) {
  Losses out;
  const auto teachers = static_cast<int>(config.teachers.size());
  for (ConfigSection& section : top.sections("loss")) {
    LossConfig c;
    section.read_choice("type", c.type, loss_types());
    if (c.type.empty()) section.reject(fmt::format("needs a type: {}", fmt::join(loss_types(), ", ")));
    c.where = fmt::format("{}: [[loss]] type = \"{}\"", section.where(), c.type);
    if (c.type != "cross_entropy" && teachers == 0) {
      section.reject("type", "learns from a teacher, but there is no [[teacher]] block");
    }
    section.read("weight", c.weight, weight_range());
    section.read("teacher", c.teacher, Range::closed(0, teachers));
    if (c.teacher > 0 && config.combine == Combine::random) {
      section.reject("teacher", "cannot be chosen where [distill] combine = \"random\" draws one");
    }
    c.schedule = read_weight_schedule(section);
    c.build = loss_reader(c.type)(section);
    section.finish();
    out.resolved.push_back(config_value(section.resolved()));
    out.losses.push_back(std::move(c));
  }
  return out;
}

// What a [[student]] block may set for itself; the rest belongs to the batch that all of them share.
const std::vector<std::string>& student_tables() {
  static const std::vector<std::string> tables{"model", "optimizer", "schedule", "loss"};
  return tables;
}

constexpr int kBlockLayers = 1000;  // more than there are files and --set

// The config that a student would have alone: the top level, with the block's tables on top, as if by another file.
ConfigValue student_tree(const ConfigValue& tree, ConfigSection& block) {
  ConfigValue own = tree;
  for (const char* key : {"teacher", "student", "distill", "name", "seed"}) own.table().erase(key);
  ConfigTable over;
  for (const std::string& key : student_tables()) {
    if (const ConfigValue* value = block.value(key)) shift_layers(over[key] = *value, kBlockLayers);
  }
  merge_tables(own.table(), over);
  return own;
}

StudentConfig make_student(const ConfigValue& tree, const DistillConfig& config, const std::string& name,
                           const std::string& group, std::uint64_t seed, ConfigArray& resolved) {
  StudentConfig student;
  ConfigSection top(tree, "");
  student.name = name;
  student.group = group;
  student.train = read_train_config(top, config.run.name);
  student.train.seed = seed;
  Losses losses = read_losses(top, config);
  top.finish();
  if (losses.losses.empty()) top.reject("[[student]] " + name + " has no [[loss]]");
  student.losses = std::move(losses.losses);
  const ConfigTable whole = to_table(student.train);
  resolved.push_back(config_value(ConfigTable{{"name", config_value(name)},
                                              {"group", config_value(group)},
                                              {"seeds", config_list(std::vector<std::int64_t>{std::int64_t(seed)})},
                                              {"model", whole.at("model")},
                                              {"optimizer", whole.at("optimizer")},
                                              {"schedule", whole.at("schedule")},
                                              {"loss", config_value(std::move(losses.resolved))}}));
  return student;
}

void read_students(ConfigSection& top, const ConfigValue& tree, DistillConfig& config, ConfigArray& resolved) {
  std::set<std::string> names;
  for (ConfigSection& block : top.sections("student")) {
    std::string name, group;
    int runs = 1;
    std::vector<std::int64_t> seeds;
    block.read("name", name);
    block.read("group", group);
    block.read("runs", runs, Range::closed(1, 1000));
    block.read("seeds", seeds, Range::at_least(0));
    if (!is_run_name(name)) block.reject("name", kRunNameRule);
    if (block.has("runs") && !seeds.empty()) block.reject("runs", "and seeds say the same thing; give one of them");
    if (seeds.empty()) {
      const auto first = static_cast<std::int64_t>(config.run.seed);
      const bool in_range = first <= std::numeric_limits<std::int64_t>::max() - (runs - 1);
      if (!in_range) block.reject("runs", "counts beyond the largest seed");
      for (int i = 0; i < runs; ++i) seeds.push_back(first + i);
    }
    const ConfigValue own = student_tree(tree, block);
    block.finish();
    for (const std::int64_t seed : seeds) {
      const std::string full = seeds.size() == 1 ? name : fmt::format("{}-{}", name, seed);
      if (!names.insert(full).second) block.reject("name", "is taken by another student");
      config.students.push_back(
          make_student(own, config, full, group.empty() ? name : group, static_cast<std::uint64_t>(seed), resolved));
    }
  }
}

void refuse_unused_losses(ConfigSection& top) {
  std::vector<ConfigSection> students = top.sections("student"), losses = top.sections("loss");
  const bool own = std::all_of(students.begin(), students.end(), [](ConfigSection& s) { return s.has("loss"); });
  const int layer = top.layer("loss");
  if (!own || losses.empty() || layer == kRecordedLayer || layer < top.layer("student")) return;
  losses.front().reject("has no effect: every [[student]] has [[loss]] blocks of its own");
}

void refuse_unused_smoothing(ConfigSection& top, DistillConfig& config) {
  for (const StudentConfig& student : config.students) {
    for (const LossConfig& loss : student.losses) {
      if (loss.type == "cross_entropy") return;
    }
  }
  top.section("train").unused("label_smoothing", config.run.train.label_smoothing, 0,
                              std::max(top.layer("loss"), top.layer("student")), "no [[loss]] is a cross_entropy");
}

}  // namespace

DistillConfig distill_config_of(const ConfigValue& tree, const std::string& default_name) {
  DistillConfig config;
  ConfigSection top(tree, "");
  config.run = read_train_config(top, default_name);

  ConfigArray teachers;
  for (ConfigSection& section : top.sections("teacher")) {
    config.teachers.push_back(read_teacher(section));
    teachers.push_back(config_value(section.resolved()));
  }
  ConfigSection distill = top.section("distill");
  std::string combine = "mean_softmax";
  distill.read_choice("combine", combine, combine_names());
  if (config.teachers.size() < 2) {
    distill.unused("combine", combine, "mean_softmax", top.layer("teacher"), "there are no two teachers to combine");
    distill.resolve("combine", config_value(combine));
  }
  config.combine = combine_of(combine);
  distill.read("baseline", config.baseline);
  distill.read("gradient_norms_every", config.gradient_norms_every, Range::at_least(0));
  if (distill.has("teacher_tolerance")) {
    distill.read("teacher_tolerance", config.teacher_tolerance.emplace(), Range::closed(0, 1));
  }
  distill.finish();

  ConfigTable resolved;
  if (top.has("student")) {
    ConfigArray students;
    refuse_unused_losses(top);
    read_losses(top, config);  // those that all students share by default are checked even where each has its own
    read_students(top, tree, config, students);
    resolved["student"] = config_value(std::move(students));
  } else {
    StudentConfig only;
    only.train = config.run;
    Losses losses = read_losses(top, config);
    if (losses.losses.empty()) top.reject("has no [[loss]] block; to train without a teacher: ./train " + tree.where);
    only.losses = std::move(losses.losses);
    resolved["loss"] = config_value(std::move(losses.resolved));
    config.students.push_back(std::move(only));
  }
  top.finish();
  refuse_unused_smoothing(top, config);
  resolved.merge(to_table(config.run));
  resolved["teacher"] = config_value(std::move(teachers));
  resolved["distill"] = config_value(distill.resolved());
  config.resolved = to_toml(resolved);
  return config;
}

DistillConfig load_distill_config(const std::string& path, const std::vector<std::string>& overrides) {
  const NamedTree named = load_named_tree(path, overrides);
  DistillConfig config = distill_config_of(named.tree, named.name);
  config.run.origin.note = named.note;
  return config;
}

}  // namespace retort
