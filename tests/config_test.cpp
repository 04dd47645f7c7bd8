#include "distill/config.h"

#include <gmock/gmock.h>

#include "distill/distill_config.h"
#include "engine/suggest.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

TrainConfig read(const std::string& text) {
  return train_config_of(parse_config_tree(text, "t.cfg"), "t");
}
std::string refusal(const std::string& text) {
  return error_of([&] { read(text); });
}

TEST(Suggest, FindsTheNearestWord) {
  const std::vector<std::string> words{"momentum", "lr", "weight_decay", "nesterov"};
  EXPECT_EQ(nearest("momentun", words), "momentum");
  EXPECT_EQ(nearest("mometnum", words), "momentum");  // a swap is one error
  EXPECT_EQ(nearest("Weight-Decay", words), "weight_decay");
  EXPECT_EQ(nearest("lrr", words), "lr");
  EXPECT_EQ(nearest("l", words), "lr");
  EXPECT_EQ(nearest("banana", words), "");
  EXPECT_EQ(nearest("x", words), "");
  EXPECT_EQ(nearest("", words), "");
  EXPECT_EQ(in_quotes("a\nb\"c"), "\"a\\x0ab\\x22c\"");
}

TEST(Config, DefaultsStandWhereNothingIsSaid) {
  const TrainConfig c = read("");
  EXPECT_EQ(c.name, "t");
  EXPECT_EQ(c.data.dataset, "cifar100");
  EXPECT_EQ(c.data.normalize.preset, "imagenet");
  EXPECT_DOUBLE_EQ(c.data.normalize.std[2], 0.225);
  EXPECT_EQ(c.optimizer.lr, 0.1);
  EXPECT_EQ(read("[optimizer]\ntype = 'adamw'").optimizer.lr, 1e-3);
  EXPECT_EQ(c.output_root, "runs");
}

constexpr const char* kEverything = R"(
name = "resnet18-r0"
seed = 42
device = "cuda:1"
precision = "bf16"
strict_math = true
[data]
dataset = "cifar10"
root = "/data sets/\"x\""
validation = 5000
train_files = ["data_batch_1.bin"]
fraction = 0.3333333333333333
shuffle = false
batch_size = 77
augment = ["flip", {name = "crop", padding = 4, size = [28, 24]}, {name = "color_jitter", brightness = 0.2, hue = [-0.1, 0.2]},
           {name = "rotation", degrees = 10}, {name = "resized_crop", scale = [0.8, 1], ratio = [0.9, 1.1]}]
normalize = {mean = [0.1, 0.2, 0.3], std = [0.25, 0.5, 1]}
[model]
arch = "resnet34"
stem = "imagenet"
shortcut = "pad"
classes = 10
init = "a.safetensors"
zero_init_residual = true
[optimizer]
type = "sgd"
lr = 0.30000000000000004
momentum = 0.8
nesterov = true
weight_decay = 2e-5
decay = "all"
[schedule]
type = "milestones"
warmup_epochs = 2.5
gamma = 0.2
milestones = [60, 120]
[train]
epochs = 600
max_steps = 3000000000
label_smoothing = 0.1
clip_grad_norm = 10
early_stop_patience = 150
evaluate_every = 2
evaluate_test = false
[output]
root = "elsewhere"
)";

// What has no meaning beside that.
constexpr const char* kAdamWithRestarts = R"(
[optimizer]
type = "adam"
beta1 = 0.8
beta2 = 0.9
epsilon = 1e-300
[schedule]
type = "cosine_restarts"
t_0 = 9
t_mult = 2
min_lr = 1e-5
)";
constexpr const char* kSteps = "[schedule]\ntype = 'step'\nstep_epochs = 7";

TEST(Config, ReadsEveryKey) {
  const TrainConfig c = read(kEverything);
  EXPECT_EQ(c.name, "resnet18-r0");
  EXPECT_EQ(c.seed, 42u);
  EXPECT_EQ(c.device, "cuda:1");
  EXPECT_EQ(c.precision, "bf16");
  EXPECT_TRUE(c.strict_math);
  EXPECT_EQ(c.data.root, "/data sets/\"x\"");
  EXPECT_EQ(c.data.validation, 5000);
  EXPECT_EQ(c.data.train_files, std::vector<std::string>{"data_batch_1.bin"});
  EXPECT_FALSE(c.data.shuffle);
  EXPECT_EQ(c.data.batch_size, 77);
  ASSERT_EQ(c.data.augment.size(), 5u);
  EXPECT_EQ(c.data.augment[0].name, "flip");
  EXPECT_EQ(c.data.augment[1].option("padding", 0), 4);
  EXPECT_EQ(c.data.augment[1].option("size", 0, 1), 24);
  EXPECT_EQ(c.data.augment[2].option("saturation", 0.25), 0.25);
  EXPECT_EQ(c.data.augment[4].option("ratio", 0, 1), 1.1);
  EXPECT_EQ(c.data.normalize.preset, "");
  EXPECT_EQ(c.data.normalize.std[0], 0.25);
  EXPECT_EQ(c.model.arch, "resnet34");
  EXPECT_EQ(c.model.shortcut, "pad");
  EXPECT_TRUE(c.model.zero_init_residual);
  EXPECT_EQ(c.optimizer.lr, 0.30000000000000004);
  const TrainConfig adam = read(kAdamWithRestarts);
  EXPECT_EQ(adam.optimizer.beta1, 0.8);
  EXPECT_EQ(adam.optimizer.beta2, 0.9);
  EXPECT_EQ(adam.optimizer.epsilon, 1e-300);
  EXPECT_EQ(adam.schedule.t_0, 9);
  EXPECT_EQ(adam.schedule.t_mult, 2);
  EXPECT_EQ(adam.schedule.min_lr, 1e-5);
  EXPECT_EQ(read(kSteps).schedule.step_epochs, 7);
  EXPECT_EQ(c.schedule.milestones, (std::vector<int>{60, 120}));
  EXPECT_EQ(c.schedule.warmup_epochs, 2.5);
  EXPECT_EQ(c.train.max_steps, 3000000000);
  EXPECT_FALSE(c.train.evaluate_test);
  EXPECT_EQ(c.output_root, "elsewhere");
}

TEST(Config, WrittenBackItReadsTheSame) {
  for (const std::string text :
       {"", kEverything, kAdamWithRestarts, kSteps, "[optimizer]\nlr = 0.1\n[data]\nnormalize = 'none'"}) {
    const TrainConfig c = read(text);
    const TrainConfig again = train_config_of(parse_config_tree(to_toml(c), "resolved"), "another");
    EXPECT_EQ(c, again) << to_toml(c);
  }
}

TEST(Config, DoublesSurviveTheTripExactly) {
  TrainConfig c = read("");
  for (const double lr : {0.1, 1.0 / 3.0, 2.5e-8, 123456789.123456789, 5e-324 * 3, 1e22}) {
    c.optimizer.lr = lr;
    EXPECT_EQ(read(to_toml(c)).optimizer.lr, lr);
  }
}

TEST(Config, RefusesInOneLineThatNamesThePlace) {
  EXPECT_EQ(refusal("name = 'x'\n\n[optimizer]\nlr = 0.1\nmomentun = 0.9"),
            "t.cfg:5: [optimizer] unknown key \"momentun\"; did you mean \"momentum\"?");
  EXPECT_EQ(refusal("[optimiser]\nlr = 0.1"), "t.cfg:1: unknown section \"optimiser\"; did you mean \"optimizer\"?");
  EXPECT_THAT(refusal("banana = 1"), StartsWith("t.cfg:1: unknown key \"banana\"; known are data, device"));
  EXPECT_EQ(refusal("[optimizer]\nlr = 'fast'"), "t.cfg:2: [optimizer] lr = \"fast\": expected a number, got a string");
  EXPECT_EQ(refusal("[data]\nbatch_size = 0"), "t.cfg:2: [data] batch_size = 0: must be at least 1");
  EXPECT_EQ(refusal("[data]\nbatch_size = 12.5"),
            "t.cfg:2: [data] batch_size = 12.5: expected an integer, got a number");
  EXPECT_EQ(refusal("[data]\nbatch_size = 5000000000"), "t.cfg:2: [data] batch_size = 5000000000: too large");
  EXPECT_EQ(refusal("[optimizer]\nlr = nan"), "t.cfg:2: [optimizer] lr = nan: must be above 0");
  EXPECT_EQ(refusal("[optimizer]\nlr = inf"), "t.cfg:2: [optimizer] lr = inf: must be above 0");
  EXPECT_EQ(refusal("[model]\narch = 'resnet21'"),
            "t.cfg:2: [model] arch = \"resnet21\": unknown; did you mean \"resnet20\"?");
  EXPECT_THAT(refusal("[data]\ndataset = 'mnist'"), EndsWith("unknown; known are cifar10, cifar100, shapes"));
  EXPECT_EQ(refusal("data = 3"), "t.cfg:1: [data] expected a table, got an integer");
}

TEST(Config, RefusesImpossibleValues) {
  for (const std::string text : {
           "[optimizer]\nlr = -0.1",
           "[optimizer]\nlr = 0",
           "[optimizer]\nmomentum = 1",
           "[optimizer]\nmomentum = -0.1",
           "[optimizer]\nweight_decay = -1",
           "[optimizer]\nbeta2 = 1.0",
           "[optimizer]\nepsilon = 0",
           "[optimizer]\ntype = 'lion'",
           "[optimizer]\ndecay = 'some'",
           "[optimizer]\ntype = 'adam'\nnesterov = true",
           "[optimizer]\nmomentum = 0\nnesterov = true",
           "[train]\nepochs = 0",
           "[train]\nlabel_smoothing = 1.0",
           "[train]\nlabel_smoothing = -0.1",
           "[train]\nclip_grad_norm = -1",
           "[train]\nevaluate_every = 0",
           "[schedule]\ntype = 'linear'",
           "[schedule]\ntype = 'step'",
           "[schedule]\ntype = 'cosine_restarts'",
           "[schedule]\ntype = 'milestones'",
           "[schedule]\nmilestones = [3, 2]",
           "[schedule]\nmilestones = [3, 3]",
           "[schedule]\nmin_lr = 1",
           "[schedule]\nwarmup_epochs = -1",
           "[schedule]\nt_0 = 0",
           "[data]\nfraction = 0",
           "[data]\nfraction = 1.5",
           "[data]\nvalidation = -1",
           "[data]\nvalidation = 10.5",
           "[data]\nshuffle = 1",
           "[data]\naugment = 'flip'",
           "[data]\naugment = ['flop']",
           "[data]\naugment = [3]",
           "[data]\naugment = [{padding = 4}]",
           "[data]\naugment = [{name = 'crop', padding = -1}]",
           "[data]\naugment = [{name = 'crop', pading = 1}]",
           "[data]\naugment = [{name = 'crop', padding = 1.5}]",
           "[data]\naugment = [{name = 'resized_crop', scale = [1, 0.5]}]",
           "[data]\naugment = [{name = 'resized_crop', scale = 0.5}]",
           "[data]\nnormalize = 'imagnet'",
           "[data]\nnormalize = {mean = [0, 0, 0]}",
           "[data]\nnormalize = {mean = [0, 0, 0], std = [1, 1, 0]}",
           "[data]\nnormalize = {mean = [0, 0, 0], std = [1, 1, 1], var = 1}",
           "[model]\nstem = 'mnist'",
           "[model]\nclasses = -1",
           "device = 'gpu'",
           "device = 'cuda:'",
           "device = 'cuda:x'",
           "device = 'cuda:1000000000000'",
           "precision = 'f16'",
           "seed = -1",
           "seed = 1.0",
           "name = ''",
           "name = '../up'",
           "name = 'a/b'",
           "name = 7",
           "[output]\nroot = ''",
           "strict_math = 'yes'",
           "[data]\ntrain_files = 'a'",
           "[data]\ntrain_files = [1]",
           "[data]\nroot = 2024-01-01",
       }) {
    EXPECT_THAT(refusal(text), StartsWith("t.cfg:")) << text;
  }
}

TEST(Config, SyntaxErrorsNameFileAndLine) {
  EXPECT_THAT(refusal("seed = 1\nname = \n"), StartsWith("t.cfg:2: not valid TOML: "));
  EXPECT_THAT(refusal("seed = 1\nseed = 2\n"), StartsWith("t.cfg:2: not valid TOML: "));
  EXPECT_THAT(refusal("[data\n"), StartsWith("t.cfg:1: not valid TOML: "));
  EXPECT_THAT(refusal(std::string("seed = \0", 8)), StartsWith("t.cfg:1: not valid TOML: "));
  EXPECT_THAT(refusal("name = \"\xff\xfe\""), StartsWith("t.cfg:1: not valid TOML: "));
}

TEST(Config, ExtendsTakesTheBaseAndReplacesKeyByKey) {
  const TemporaryFolder folder;
  folder.write("base.cfg",
               "seed = 7\n[data]\nbatch_size = 64\naugment = ['flip', 'crop']\n[optimizer]\nlr = 0.5\nmomentum = 0.5");
  folder.write("sub/middle.cfg", "extends = '../base.cfg'\n[optimizer]\nlr = 0.25");
  const std::string leaf =
      folder.write("leaf.cfg", "extends = 'sub/middle.cfg'\n[data]\naugment = ['rotation']\n[train]\nepochs = 3");
  const TrainConfig c = load_train_config(leaf);
  EXPECT_EQ(c.name, "leaf");
  EXPECT_EQ(c.seed, 7u);
  EXPECT_EQ(c.data.batch_size, 64);
  ASSERT_EQ(c.data.augment.size(), 1u);
  EXPECT_EQ(c.data.augment[0].name, "rotation");
  EXPECT_EQ(c.optimizer.lr, 0.25);
  EXPECT_EQ(c.optimizer.momentum, 0.5);
  EXPECT_EQ(c.train.epochs, 3);

  // An error in a base names the base.
  const std::string bad = folder.write("bad_base.cfg", "seed = 7\n[optimizer]\nlrr = 1");
  const std::string user = folder.write("user.cfg", "extends = 'bad_base.cfg'");
  EXPECT_EQ(error_of([&] { load_train_config(user); }),
            bad + ":3: [optimizer] unknown key \"lrr\"; did you mean \"lr\"?");
}

TEST(Config, ExtendsRefusesCyclesAndMissingFiles) {
  const TemporaryFolder folder;
  const std::string a = folder.write("a.cfg", "extends = 'b.cfg'");
  folder.write("b.cfg", "\nextends = './a.cfg'");
  EXPECT_THAT(error_of([&] { load_train_config(a); }), HasSubstr("extends itself"));
  const std::string self = folder.write("self.cfg", "extends = 'self.cfg'");
  EXPECT_THAT(error_of([&] { load_train_config(self); }), HasSubstr("extends itself"));
  const std::string lost = folder.write("lost.cfg", "seed = 1\nextends = 'nowhere.cfg'");
  EXPECT_THAT(error_of([&] { load_train_config(lost); }),
              EndsWith("nowhere.cfg: no such file, which " + lost + ":2 extends"));
  EXPECT_THAT(error_of([&] { load_train_config(folder / "missing.cfg"); }), EndsWith("missing.cfg: no such file"));
  EXPECT_THAT(error_of([&] { load_train_config(folder.path()); }), HasSubstr("is a folder"));
}

TEST(Config, OverridesComeLast) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.cfg", "[optimizer]\nlr = 0.5\n[data]\naugment = ['flip']\n");
  const TrainConfig c = load_train_config(
      path, {"optimizer.lr=0.1", "train.epochs=5", "model.arch=resnet20", "data.augment=[]", "name=\"quoted\"",
             "data.dataset=cifar10", "data.train_files=[\"data_batch_1.bin\", 'data_batch_2.bin']",
             "data.normalize={mean=[0,0,0],std=[1,1,1]}", "train.epochs=6"});
  EXPECT_EQ(c.optimizer.lr, 0.1);
  EXPECT_EQ(c.train.epochs, 6);
  EXPECT_EQ(c.model.arch, "resnet20");
  EXPECT_TRUE(c.data.augment.empty());
  EXPECT_EQ(c.name, "quoted");
  EXPECT_EQ(c.data.train_files, (std::vector<std::string>{"data_batch_1.bin", "data_batch_2.bin"}));

  const auto with = [&](const std::string& assignment) {
    return error_of([&] { load_train_config(path, {assignment}); });
  };
  EXPECT_EQ(with("optimizer.lr=fast"),
            "--set optimizer.lr: [optimizer] lr = \"fast\": expected a number, got a string");
  EXPECT_EQ(with("optimizer.lrr=1"), "--set optimizer.lrr: [optimizer] unknown key \"lrr\"; did you mean \"lr\"?");
  EXPECT_EQ(with("optimizer.lr=1\nseed=2").find("--set optimizer.lr: [optimizer] lr = \"1\\x0aseed=2\""), 0u);
  EXPECT_THAT(with("optimizer.lr"), HasSubstr("expected section.key=value"));
  EXPECT_THAT(with("optimizer.lr.x=1"), HasSubstr("below a plain value"));
  EXPECT_THAT(with("optimizer..lr=1"), HasSubstr("empty key"));
  EXPECT_THAT(with("extends=b.cfg"), HasSubstr("only be given in a file"));
  EXPECT_THAT(with("data.augment.1=crop"), HasSubstr("not one of the 1 entries"));
  EXPECT_EQ(load_train_config(path, {"data.augment.0=crop"}).data.augment[0].name, "crop");
}

TEST(Config, OtherProgramsReadTheirOwnBlocksTheSameWay) {
  const ConfigValue tree =
      parse_config_tree("[[loss]]\ntype = 'kd'\nweight = 2\n[[loss]]\ntype = 'at'\nwieght = 1", "d.cfg");
  ConfigSection top(tree, "");
  const TrainConfig base = read_train_config(top, "d");
  EXPECT_EQ(base.model.arch, "resnet18");
  std::vector<ConfigSection> losses = top.sections("loss");
  top.finish();
  ASSERT_EQ(losses.size(), 2u);
  std::string type;
  double weight = 0;
  losses[0].read("type", type);
  losses[0].read("weight", weight);
  losses[0].finish();
  EXPECT_EQ(type, "kd");
  EXPECT_EQ(weight, 2);
  losses[1].read("type", type);
  losses[1].read("weight", weight);
  EXPECT_EQ(error_of([&] { losses[1].finish(); }),
            "d.cfg:6: [[loss]] 2 unknown key \"wieght\"; did you mean \"weight\"?");
}

TEST(Config, StudentsTakeSeedsOfAnySize) {
  const auto read = [](const std::string& seed, const std::string& student) {
    const std::string text =
        "seed = " + seed + "\n[[student]]\nname = \"s\"\n" + student + "\n[[student.loss]]\ntype = \"cross_entropy\"\n";
    return distill_config_of(parse_config_tree(text, "d.cfg"), "d");
  };
  const DistillConfig counted = read("4294967297", "runs = 2");
  ASSERT_EQ(counted.students.size(), 2U);
  EXPECT_EQ(counted.students[1].train.seed, 4294967298U);
  EXPECT_EQ(counted.students[1].name, "s-4294967298");
  EXPECT_EQ(read("1", "seeds = [4294967297]").students[0].train.seed, 4294967297U);
  EXPECT_EQ(read("9223372036854775807", "").students[0].train.seed, 9223372036854775807U);
  EXPECT_THAT(error_of([&] { read("9223372036854775807", "runs = 2"); }), testing::HasSubstr("the largest seed"));
  EXPECT_THAT(error_of([&] { read("1", "runs = 1001"); }), testing::HasSubstr("1000"));
}

TEST(Config, EveryShippedConfigReads) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("configs")) {
    if (entry.path().extension() != ".cfg") continue;
    ++count;
    const ConfigValue tree = load_config_tree(entry.path().string());
    if (tree.table().contains("teacher")) {
      // student_distilled.cfg is what others extend: it has no [[loss]] of its own.
      if (!tree.table().contains("loss") && !tree.table().contains("student")) continue;
      const DistillConfig c = load_distill_config(entry.path().string());
      EXPECT_EQ(c.resolved, distill_config_of(parse_config_tree(c.resolved, "again"), "x").resolved) << entry.path();
      continue;
    }
    const TrainConfig c = load_train_config(entry.path().string());
    EXPECT_EQ(c, train_config_of(parse_config_tree(to_toml(c), "again"), "x")) << entry.path();
  }
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace retort
