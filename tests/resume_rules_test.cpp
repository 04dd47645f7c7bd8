// Which keys of a config a run may change when it goes on: every key there is, one by one.
#include "distill/resume_rules.h"

#include <gmock/gmock.h>

#include "distill/distill_config.h"

namespace retort {
namespace {

using testing::ElementsAre;

FlatConfig train_keys(const std::string& text) {
  return flat_config(config_value(to_table(train_config_of(parse_config_tree(text, "t.cfg"), "t"))));
}

FlatConfig distill_keys(const std::string& text) {
  return flat_config(parse_config_tree(distill_config_of(parse_config_tree(text, "d.cfg"), "d").resolved, "d.cfg"));
}

// Every key that a config can have, so that none goes unclassified: a new one must be added here, and in docs/runs.md.
using Verdicts = std::map<std::string, ResumeRule>;

Verdicts of(ResumeRule rule, const std::vector<std::string>& keys) {
  Verdicts verdicts;
  for (const std::string& key : keys) verdicts[key] = rule;
  return verdicts;
}

Verdicts merged(std::initializer_list<Verdicts> parts) {
  Verdicts all;
  for (const Verdicts& part : parts) all.insert(part.begin(), part.end());
  return all;
}

Verdicts run_verdicts() {
  return merged({
      of(ResumeRule::allowed, {"name", "device", "output.root", "train.early_stop_patience", "train.evaluate_every",
                               "train.evaluate_test", "train.checkpoint_minutes"}),
      of(ResumeRule::honoured, {"train.epochs", "train.max_steps"}),
      of(ResumeRule::contents, {"data.root", "model.init"}),
      of(ResumeRule::refused, {"seed",
                               "precision",
                               "strict_math",
                               "data.dataset",
                               "data.validation",
                               "data.train_files",
                               "data.fraction",
                               "data.shuffle",
                               "data.batch_size",
                               "data.normalize",
                               "data.normalize.mean",
                               "data.normalize.std",
                               "data.augment",
                               "data.augment.0.name",
                               "data.augment.0.p",
                               "data.augment.1.name",
                               "data.augment.1.padding",
                               "data.augment.1.size",
                               "train.label_smoothing",
                               "train.clip_grad_norm"}),
  });
}

// Of [model], [optimizer] and [schedule], at the top or below a student.
Verdicts network_verdicts(const std::string& above) {
  std::vector<std::string> keys;
  for (const char* key : {"model.arch",
                          "model.stem",
                          "model.shortcut",
                          "model.classes",
                          "model.zero_init_residual",
                          "model.init_skip",
                          "model.drop_blocks",
                          "model.freeze",
                          "optimizer.type",
                          "optimizer.lr",
                          "optimizer.momentum",
                          "optimizer.nesterov",
                          "optimizer.weight_decay",
                          "optimizer.decay",
                          "optimizer.beta1",
                          "optimizer.beta2",
                          "optimizer.epsilon",
                          "schedule.type",
                          "schedule.warmup_epochs",
                          "schedule.gamma",
                          "schedule.milestones",
                          "schedule.t_mult",
                          "schedule.min_lr",
                          "schedule.step_epochs",
                          "schedule.t_0"}) {
    keys.push_back(above + key);
  }
  return merged({of(ResumeRule::refused, keys), of(ResumeRule::contents, {above + "model.init"})});
}

Verdicts teacher_verdicts(const std::string& above) {
  return merged({of(ResumeRule::contents, {above + "path"}),
                 of(ResumeRule::refused,
                    {above + "precision", above + "fold", above + "arch", above + "stem", above + "shortcut"})});
}

Verdicts distill_verdicts() {
  return merged(
      {of(ResumeRule::refused, {"distill.combine"}),
       of(ResumeRule::allowed, {"distill.baseline", "distill.gradient_norms_every", "distill.teacher_tolerance"})});
}

void expect_verdicts(const FlatConfig& keys, const Verdicts& verdicts) {
  for (const auto& [key, value] : keys) {
    const auto expected = verdicts.find(key);
    if (expected == verdicts.end()) {
      ADD_FAILURE() << key << ": say here what happens to it when a run goes on, and in docs/runs.md";
      continue;
    }
    EXPECT_EQ(resume_rule(key), expected->second) << key;
  }
}

constexpr const char* kFullRun = R"(
[data]
augment = [{name = "flip", p = 0.25}, {name = "crop", padding = 4, size = [28, 24]}]
[model]
init = "a.safetensors"
[schedule]
type = "step"
step_epochs = 7
)";

TEST(ResumeRules, EveryKeyOfATrainingRun) {
  const Verdicts all = merged({run_verdicts(), network_verdicts("")});
  expect_verdicts(train_keys(kFullRun), all);
  expect_verdicts(train_keys("[data]\nnormalize = {mean = [0, 0, 0], std = [1, 1, 1]}"), all);
  expect_verdicts(train_keys("[schedule]\ntype = \"cosine_restarts\"\nt_0 = 9"), all);
}

constexpr const char* kTeachers = R"(
[[teacher]]
path = "a"
precision = "f32"
arch = "resnet8"
stem = "cifar"
shortcut = "pad"
[[teacher]]
path = "b"
)";

TEST(ResumeRules, EveryKeyOfADistillation) {
  const Verdicts all = merged({run_verdicts(), network_verdicts(""), teacher_verdicts("teacher.0."),
                               teacher_verdicts("teacher.1."), distill_verdicts()});
  for (const std::string& type : loss_types()) {
    const FlatConfig keys =
        distill_keys(std::string(kFullRun) + kTeachers + "[[loss]]\ntype = \"cross_entropy\"\n" +
                     "[[loss]]\ntype = \"" + type + "\"\nweight = 2\nschedule = {type = \"warmup\", epochs = 2}\n");
    FlatConfig others;
    std::size_t losses = 0;
    for (const auto& [key, value] : keys) {
      if (!key.starts_with("loss.")) {
        others[key] = value;
        continue;
      }
      ++losses;
      EXPECT_EQ(resume_rule(key), ResumeRule::refused) << key << " of " << type;
    }
    EXPECT_GE(losses, 8U) << type;  // type, weight, teacher, and the schedule's of one
    expect_verdicts(others, all);
  }
}

TEST(ResumeRules, EveryKeyOfSeveralStudents) {
  const FlatConfig keys = distill_keys(std::string(kFullRun) + kTeachers + R"(
[[student]]
name = "kd"
group = "mine"
seeds = [3, 4]
[[student.loss]]
type = "soft_targets"
temperature = 2
)");
  Verdicts all = merged({run_verdicts(), network_verdicts(""), teacher_verdicts("teacher.0."),
                         teacher_verdicts("teacher.1."), distill_verdicts()});
  for (const std::string student : {"student.0.", "student.1."}) {
    all = merged({all, network_verdicts(student), of(ResumeRule::allowed, {student + "group"}),
                  of(ResumeRule::refused,
                     {student + "name", student + "seeds", student + "loss.0.type", student + "loss.0.weight",
                      student + "loss.0.teacher", student + "loss.0.temperature", student + "loss.0.standardize"})});
  }
  expect_verdicts(keys, all);
  EXPECT_TRUE(keys.contains("student.1.optimizer.lr"));
}

TEST(ResumeRules, AKeyThatNobodyThoughtOfIsRefused) {
  EXPECT_EQ(resume_rule("train.cutmix"), ResumeRule::refused);
  EXPECT_EQ(resume_rule("student.0.train.epochs"), ResumeRule::refused);
  EXPECT_EQ(resume_rule("teacher.0.path.x"), ResumeRule::refused);
  EXPECT_EQ(resume_rule(""), ResumeRule::refused);
}

TEST(ResumeRules, ChangesShowBothValues) {
  const auto changes = [](const std::string& before, const std::string& after) {
    std::vector<std::string> texts;
    for (const ConfigChange& change : config_changes(train_keys(before), train_keys(after))) {
      texts.push_back(text_of(change));
    }
    return texts;
  };
  EXPECT_THAT(changes("", "seed = 1\n[optimizer]\nlr = 0.1"), ElementsAre());  // the defaults, written out
  EXPECT_THAT(changes("[data]\nfraction = 1", "[data]\nfraction = 1.0"), ElementsAre());
  EXPECT_THAT(changes("[optimizer]\nlr = 0.30000000000000004", "seed = 2\n[optimizer]\nlr = 0.3"),
              ElementsAre("optimizer.lr: 0.30000000000000004, now 0.3", "seed: 1, now 2"));
  EXPECT_THAT(changes("[data]\naugment = [\"flip\"]", "[model]\nfreeze = [\"fc.\", \"bn\"]"),
              ElementsAre("data.augment: nothing, now []", "data.augment.0.name: \"flip\", now nothing",
                          "model.freeze: [], now [\"fc.\",\"bn\"]"));
}

TEST(ResumeRules, SchedulesThatFollowTheLengthAreKnown) {
  EXPECT_FALSE(depends_on_length(train_keys("")));
  EXPECT_FALSE(depends_on_length(train_keys("[schedule]\ntype = \"step\"\nstep_epochs = 2")));
  EXPECT_TRUE(depends_on_length(train_keys("[schedule]\ntype = \"cosine\"")));
  const std::string loss = "[[loss]]\ntype = \"cross_entropy\"\nschedule = {type = \"polynomial\", to = 0}";
  EXPECT_TRUE(depends_on_length(distill_keys(loss)));
}

}  // namespace
}  // namespace retort
