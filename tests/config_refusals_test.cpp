// What a config can say wrong, key by key: each is refused with the place where it was written.
#include <gmock/gmock.h>

#include <fstream>
#include <regex>
#include <set>

#include "distill/distill_config.h"
#include "distill/learner.h"
#include "distill/memory_need.h"
#include "kernels/available_memory.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

struct Refusal {
  std::string text;   // of t.cfg
  std::string begin;  // of the error, behind "t.cfg:"
  std::string also = "";
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.text;
}

TrainConfig read(const std::string& text) {
  return train_config_of(parse_config_tree(text, "t.cfg"), "t");
}
DistillConfig read_distillation(const std::string& text) {
  return distill_config_of(parse_config_tree(text, "t.cfg"), "t");
}

class RefusedTraining : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedTraining, NamesFileLineAndKey) {
  const Refusal& refusal = GetParam();
  EXPECT_THAT(error_of([&] { read(refusal.text); }),
              AllOf(StartsWith("t.cfg:" + refusal.begin), HasSubstr(refusal.also)));
}

const Refusal kTraining[] = {
    {"\nname = 7", "2: name = 7: expected a string", "put quotes around it"},
    {"name = 'ü'", "1: name = ", "names a folder"},
    {"seed = -1", "1: seed = -1: "},
    {"device = 'gpu'", "1: device = \"gpu\": "},
    {"precision = 'f16'", "1: precision = \"f16\": "},
    {"strict_math = 1", "1: strict_math = 1: "},
    {"[data]\ndataset = 'mnist'", "2: [data] dataset = \"mnist\": "},
    {"[data]\nroot = 7", "2: [data] root = 7: ", "quotes"},
    {"[data]\nvalidation = 1.5", "2: [data] validation = 1.5: "},
    {"[data]\ntrain_files = ['x.bin']", "2: [data] train_files = [...]: ", "its training files are"},
    {"[data]\ntrain_files = ['train.bin', 'train.bin']", "2: [data] train_files = [...]: ", "twice"},
    {"[data]\ndataset = 'shapes'\ntrain_files = ['a']", "3: [data] train_files = [...]: has no effect: "},
    {"[data]\nfraction = 0", "2: [data] fraction = 0: "},
    {"[data]\nshuffle = 1", "2: [data] shuffle = 1: "},
    {"[data]\nbatch_size = 0", "2: [data] batch_size = 0: "},
    {"[data]\naugment = ['flip',\n'flop']", "3: [data] augment 2: name = \"flop\": unknown; did you mean \"flip\""},
    {"[data]\naugment = [{name = 'flip', p = 2}]", "2: [data] augment 1: p = 2: expected a number from 0 to 1"},
    {"[data]\naugment = [{name = 'vertical_flip', p = -1}]", "2: [data] augment 1: p = -1: "},
    {"[data]\naugment = [{name = 'crop', padding = -4}]", "2: [data] augment 1: padding = -4: "},
    {"[data]\naugment = [{name = 'crop', padding = 0.5}]", "2: [data] augment 1: padding = 0.5: ", "whole"},
    {"[data]\naugment = [{name = 'crop', size = 100000}]", "2: [data] augment 1: size = 100000: "},
    {"[data]\naugment = [{name = 'crop', pading = 4}]", "2: [data] augment 1: pading = 4: ", "\"padding\""},
    {"[data]\naugment = [{name = 'rotation', degrees = -5}]", "2: [data] augment 1: degrees = -5: "},
    {"[data]\naugment = [{name = 'rotation', degrees = 400}]", "2: [data] augment 1: degrees = 400: ", "360"},
    {"[data]\naugment = [{name = 'rotation', degrees = [9, -9]}]", "2: [data] augment 1: degrees = [...]: "},
    {"[data]\naugment = [{name = 'rotation', degrees = '9'}]", "2: [data] augment 1: degrees = \"9\": "},
    {"[data]\naugment = [{name = 'color_jitter', hue = 0.6}]", "2: [data] augment 1: hue = 0.6: "},
    {"[data]\naugment = [{name = 'color_jitter', contrast = -1}]", "2: [data] augment 1: contrast = -1: "},
    {"[data]\naugment = [{name = 'resized_crop', scale = [0, 1]}]", "2: [data] augment 1: scale = [...]: "},
    {"[data]\naugment = [{name = 'resized_crop', ratio = 1}]", "2: [data] augment 1: ratio = 1: "},
    {"[data]\naugment = ['flip','flip','flip','flip','flip','flip','flip','flip','flip']",
     "2: [data] augment = [...]: 9 steps"},
    {"[data]\nnormalize = 'imagnet'", "2: [data] normalize = \"imagnet\": "},
    {"[data]\nnormalize = {mean = [0, 0, 0], std = [1, 1, 0]}", "2: [data.normalize] std = 0: "},
    {"[model]\narch = 'resnet21'", "2: [model] arch = \"resnet21\": "},
    {"[model]\narch = 'resnet20'\nstem = 'imagenet'", "3: [model] stem = \"imagenet\": ", "resnet20"},
    {"[model]\nshortcut = 'none'", "2: [model] shortcut = \"none\": "},
    {"[model]\nclasses = -1", "2: [model] classes = -1: "},
    {"[model]\ninit = 5", "2: [model] init = 5: ", "quotes"},
    {"[model]\ninit = 'teacher'", "2: [model] init = \"teacher\": ", "./distill"},
    {"[model]\ninit_skip = ['fc.']", "2: [model] init_skip = [...]: has no effect: "},
    {"[model]\ninit = 'a.pth'\ndrop_blocks = ['layer1.1']", "3: [model] drop_blocks = [...]: has no effect: "},
    {"[model]\nfreeze = 'conv1'", "2: [model] freeze = \"conv1\": expected a list"},
    {"[model]\nzero_init_residual = 'no'", "2: [model] zero_init_residual = \"no\": "},
    {"[optimizer]\ntype = 'lion'", "2: [optimizer] type = \"lion\": "},
    {"[optimizer]\nlr = 0", "2: [optimizer] lr = 0: "},
    {"[optimizer]\nmomentum = 1", "2: [optimizer] momentum = 1: "},
    {"[optimizer]\ntype = 'adam'\nmomentum = 0.5", "3: [optimizer] momentum = 0.5: has no effect: "},
    {"[optimizer]\ntype = 'adamw'\nnesterov = true", "3: [optimizer] nesterov = true: has no effect: "},
    {"[optimizer]\nbeta1 = 0.5", "2: [optimizer] beta1 = 0.5: has no effect: "},
    {"[optimizer]\nbeta2 = 0.5", "2: [optimizer] beta2 = 0.5: has no effect: "},
    {"[optimizer]\nepsilon = 0.5", "2: [optimizer] epsilon = 0.5: has no effect: "},
    {"[optimizer]\nweight_decay = -1", "2: [optimizer] weight_decay = -1: "},
    {"[optimizer]\ndecay = 'all'", "2: [optimizer] decay = \"all\": has no effect: "},
    {"[schedule]\ntype = 'linear'", "2: [schedule] type = \"linear\": "},
    {"[schedule]\ntype = 'step'", "2: [schedule] type = \"step\": needs step_epochs"},
    {"[schedule]\nwarmup_epochs = -1", "2: [schedule] warmup_epochs = -1: "},
    {"[schedule]\ntype = 'cosine'\nstep_epochs = 3", "3: [schedule] step_epochs = 3: has no effect: "},
    {"[schedule]\ngamma = 0.5", "2: [schedule] gamma = 0.5: has no effect: "},
    {"[schedule]\nmilestones = [3]", "2: [schedule] milestones = [...]: has no effect: "},
    {"[schedule]\ntype = 'milestones'\nmilestones = [3, 3]", "3: [schedule] milestones = [...]: must be ascending"},
    {"[schedule]\ntype = 'cosine'\nt_0 = 5", "3: [schedule] t_0 = 5: has no effect: "},
    {"[schedule]\ntype = 'cosine'\nt_mult = 2", "3: [schedule] t_mult = 2: has no effect: "},
    {"[schedule]\nmin_lr = 0.01", "2: [schedule] min_lr = 0.01: has no effect: "},
    {"[schedule]\ntype = 'cosine'\nmin_lr = 1", "3: [schedule] min_lr = 1: is above the learning rate"},
    {"[train]\nepochs = 0", "2: [train] epochs = 0: "},
    {"[train]\nmax_steps = -1", "2: [train] max_steps = -1: "},
    {"[train]\nlabel_smoothing = 1", "2: [train] label_smoothing = 1: "},
    {"[train]\nclip_grad_norm = -1", "2: [train] clip_grad_norm = -1: "},
    {"[train]\nevaluate_every = 0", "2: [train] evaluate_every = 0: "},
    {"[train]\nevaluate_test = 1", "2: [train] evaluate_test = 1: "},
    {"[train]\nearly_stop_patience = -1", "2: [train] early_stop_patience = -1: "},
    {"[data]\nvalidation = 0\n[train]\nearly_stop_patience = 3",
     "4: [train] early_stop_patience = 3: nothing is validated"},
    {"[data]\nvalidation = 0\n[train]\nevaluate_every = 3", "4: [train] evaluate_every = 3: has no effect: "},
    {"[output]\nroot = 7", "2: [output] root = 7: ", "quotes"},
    {"seed = 1\n[[teacher]]\npath = 'x'", "2: [[teacher]] belongs to a distillation; start it with ./distill t.cfg"},
    {"[[loss]]\ntype = 'rkd'", "1: [[loss]] belongs to a distillation"},
    {"[[student]]\nname = 'a'", "1: [[student]] belongs to a distillation"},
    {"\n[distill]\nbaseline = 'none'", "2: [distill] belongs to a distillation"},
};
INSTANTIATE_TEST_SUITE_P(Keys, RefusedTraining, testing::ValuesIn(kTraining));

const std::string kTeacherAndLoss = "[[teacher]]\npath = 'x'\n[[loss]]\ntype = 'soft_targets'\n";  // four lines

class RefusedDistillation : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedDistillation, NamesFileLineAndKey) {
  const Refusal& refusal = GetParam();
  EXPECT_THAT(error_of([&] { read_distillation(refusal.text); }),
              AllOf(StartsWith("t.cfg:" + refusal.begin), HasSubstr(refusal.also)));
}

const Refusal kDistillation[] = {
    {"[[teacher]]\nfold = true", "1: [[teacher]] 1 needs a path"},
    {"[[teacher]]\npath = 5", "2: [[teacher]] 1 path = 5: ", "quotes"},
    {"[[teacher]]\npath = 'x'\nprecision = 'f8'", "3: [[teacher]] 1 precision = \"f8\": "},
    {"[[teacher]]\npath = 'x'\narch = 'resnet21'", "3: [[teacher]] 1 arch = \"resnet21\": "},
    {"[[teacher]]\npath = 'x'\nstem = 'y'", "3: [[teacher]] 1 stem = \"y\": "},
    {"[[teacher]]\npath = 'x'\nshortcut = 'y'", "3: [[teacher]] 1 shortcut = \"y\": "},
    {"[[teacher]]\npath = 'x.onnx'\narch = 'resnet20'", "3: [[teacher]] 1 arch = \"resnet20\": has no effect: "},
    {"[[loss]]\nweight = 1", "1: [[loss]] 1 needs a type"},
    {"[[loss]]\ntype = 'soft_targts'", "2: [[loss]] 1 type = \"soft_targts\": "},
    {"[[loss]]\ntype = 'soft_targets'", "2: [[loss]] 1 type = \"soft_targets\": ", "no [[teacher]]"},
    {kTeacherAndLoss + "weight = -1", "5: [[loss]] 1 weight = -1: "},
    {kTeacherAndLoss + "teacher = 2", "5: [[loss]] 1 teacher = 2: "},
    {kTeacherAndLoss + "temperature = 0", "5: [[loss]] 1 temperature = 0: "},
    {kTeacherAndLoss + "temprature = 4", "5: [[loss]] 1 unknown key \"temprature\"; did you mean \"temperature\""},
    {kTeacherAndLoss + "schedule = {type = 'warmup'}", "5: ", "needs epochs"},
    {kTeacherAndLoss + "[distill]\ncombine = 'random'", "6: [distill] combine = \"random\": has no effect: "},
    {kTeacherAndLoss + "[distill]\nteacher_tolerance = 2", "6: [distill] teacher_tolerance = 2: "},
    {kTeacherAndLoss + "[distill]\ngradient_norms_every = -1", "6: [distill] gradient_norms_every = -1: "},
    {kTeacherAndLoss + "[distill]\nbaseline = 1", "6: [distill] baseline = 1: ", "quotes"},
    {kTeacherAndLoss + "[train]\nlabel_smoothing = 0.1", "6: [train] label_smoothing = 0.1: has no effect: "},
    {kTeacherAndLoss + "[[student]]\nname = ''", "6: [[student]] 1 name = \"\": "},
    {kTeacherAndLoss + "[[student]]\nname = 'a'\nruns = 0", "7: [[student]] 1 runs = 0: "},
    {kTeacherAndLoss + "[[student]]\nname = 'a'\nseeds = [-1]", "7: [[student]] 1 seeds = -1: "},
    {kTeacherAndLoss + "[[student]]\nname = 'a'\ngroup = 1", "7: [[student]] 1 group = 1: ", "quotes"},
    {kTeacherAndLoss + "[[student]]\nname = 'a'\n[student.model]\narch = 'x'", "8: [model] arch = \"x\": "},
    {kTeacherAndLoss + "[[student]]\nname = 'a'\n[[student.loss]]\ntype = 'cross_entropy'",
     "3: [[loss]] 1 has no effect: every [[student]]"},
    {"seed = 1", " has no [[loss]] block; to train without a teacher: ./train t.cfg"},
};
INSTANTIATE_TEST_SUITE_P(Keys, RefusedDistillation, testing::ValuesIn(kDistillation));

// What only the images show. The set that is made by the program has 20 classes and images of 32x32.
TEST(ConfigRefusals, WhatTheImagesShowHasItsPlaceToo) {
  const std::string data = "[data]\ndataset = 'shapes'\n";  // two lines
  const Refusal cases[] = {
      {data + "augment = ['flip',\n{name = 'crop', padding = 0, size = 40}]",
       "4: [data] augment 2 = {...}: ", "40 x 40"},
      {data + "[model]\nclasses = 10", "4: [model] classes = 10: ", "20 classes"},
      {data + "validation = 50000000", "3: [data] validation = 50000000: "},
      {data + "validation = 1e-9\n[train]\nearly_stop_patience = 2", "5: [train] early_stop_patience = 2: "},
      {"[data]\nroot = '/nowhere'", "2: [data] root = \"/nowhere\": no such folder"},
      {"\ndevice = 'cuda:77'", "2: device = \"cuda:77\": "},
  };
  for (const Refusal& refusal : cases) {
    EXPECT_THAT(error_of([&] { make_session(read(refusal.text)); }),
                AllOf(StartsWith("t.cfg:" + refusal.begin), HasSubstr(refusal.also)))
        << refusal.text;
  }
}

TEST(ConfigRefusals, WhatTheNetworkShowsHasItsPlaceToo) {
  const auto refusal = [](const std::string& text) {
    const TrainConfig config =
        read_distillation("[model]\narch = 'resnet8'\n" + text + "\n[[loss]]\ntype = 'cross_entropy'").run;
    const auto model = make_model({.arch = "resnet8", .classes = 3});
    model->parameters().materialize({}, DType::f32, 1);
    return error_of([&] { initialize_network(*model, config); });
  };
  EXPECT_THAT(refusal("freeze = ['layer9']"), StartsWith("t.cfg:3: [model] freeze = [...]: no parameter of resnet8"));
  EXPECT_THAT(refusal("freeze = ['']"), StartsWith("t.cfg:3: [model] freeze = [...]: leaves nothing"));
  EXPECT_THAT(refusal("init = 'teacher'"), StartsWith("t.cfg:3: [model] init = \"teacher\": there is no teacher"));
  EXPECT_THAT(refusal("init = 'nowhere.pth'"), StartsWith("t.cfg:3: [model] init = \"nowhere.pth\": nowhere.pth"));
}

Session session_of(std::int64_t classes, std::size_t images, std::int64_t side) {
  Session session;
  session.train_data.images = Tensor::zeros({1, 32, 32, 3}, DType::u8, {});
  session.classes = classes;
  session.train.resize(images);
  session.height = session.width = side;
  return session;
}

TEST(ConfigRefusals, MemoryIsForetold) {
  const TrainConfig config = read("[data]\nbatch_size = 1000000\n[model]\narch = 'resnet8'\nclasses = 2000000000");
  const Session wide = session_of(2'000'000'000, 100, 32), deep = session_of(20, 1'000'000, 32'768);
  EXPECT_THAT(error_of([&] { check_memory(config, wide); }),
              AllOf(StartsWith("t.cfg:5: [model] classes = 2000000000: takes more memory than there is"),
                    HasSubstr("[data] batch_size"), HasSubstr("cpu has ")));
  EXPECT_THAT(error_of([&] { check_memory(config, deep); }), StartsWith("t.cfg:1: [data] augment: takes more memory"));
  EXPECT_THAT(error_of([&] { make_network(config, wide); }), HasSubstr("takes more memory than there is"));

  // Weights, gradients and one moment, f32, of 77,754 parameters and what else 20 classes take.
  const TrainConfig small = read("[data]\nbatch_size = 10\n[model]\narch = 'resnet8'");
  const MemoryNeed need = memory_need(small, session_of(20, 4, 32), NetworkUse::training);
  EXPECT_EQ(need.network, need.parameters * 4 * 3);
  EXPECT_EQ(need.input, 4 * 4 * 3 * 1024);  // a batch holds no more images than there are
  EXPECT_EQ(need.step, 4 * 4 * (16 * 1024 + 2 * 20));
  EXPECT_EQ(need.evaluation, 0);  // of no images
  EXPECT_EQ(need.saving, need.parameters * 4 * 2);
  EXPECT_EQ(need.total({}), need.network + std::max(need.input + need.step, need.saving));
  EXPECT_EQ(need.total({DeviceType::cuda, 0}), need.network + need.input + need.step);
  EXPECT_EQ(memory_need(read("[optimizer]\ntype = 'adam'"), session_of(20, 4, 32), NetworkUse::training).network % 16,
            0);
  EXPECT_NO_THROW(check_memory(small, session_of(20, 4, 32)));

  // What fits alone need not fit beside others.
  const auto available = kernels::available_memory({});
  ASSERT_TRUE(available.has_value());
  const TrainConfig half = read("[data]\nbatch_size = 2\n[model]\narch = 'resnet8'");
  const auto classes = static_cast<std::int64_t>(*available / (4 * 64 * 8));  // 64 features, f32, weights five times
  const Session session = session_of(classes, 2, 32);
  EXPECT_NO_THROW(check_memory(half, session));
  const std::vector<const TrainConfig*> two(2, &half), one(1, &half);
  EXPECT_NO_THROW(check_memory(one, session));
  EXPECT_THAT(error_of([&] { check_memory(two, session); }),
              AllOf(HasSubstr("takes more memory than there is: 2 students"), HasSubstr("[[student]]")));
}

TEST(ConfigOverrides, AStringKeyTakesWhatWasTyped) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.cfg", "name = 'x'\n");
  for (const std::string text : {"42", "1e3", "true", "0x10", "2026-11-25", "1_000", "-7", "nan", "0b1", "12:30:00"}) {
    EXPECT_EQ(load_train_config(path, {"output.root=" + text}).output_root, text);
  }
  const TrainConfig c = load_train_config(path, {"name=042", "model.init=5.0", "data.root=7"});
  EXPECT_EQ(c.name, "042");
  EXPECT_EQ(c.model.init, "5.0");
  EXPECT_EQ(c.data.root, "7");
  EXPECT_EQ(load_train_config(path, {"name='7'"}).name, "7");  // quotes are TOML's here too
  EXPECT_THAT(error_of([&] { load_train_config(path, {"optimizer.lr=abc"}); }), StartsWith("--set optimizer.lr: "));
  EXPECT_THAT(error_of([&] { load_train_config(path, {"data.augment=[{name='crop',padding=-1}]"}); }),
              StartsWith("--set data.augment: [data] augment 1: padding = -1: "));
  const std::string block = folder.write("d.cfg", "[[teacher]]\npath = 'x'\n[[loss]]\ntype = 'soft_targets'\n");
  EXPECT_EQ(load_distill_config(block, {"teacher.0.path=2026"}).teachers[0].path, "2026");
}

TEST(ConfigNames, ARunIsCalledAfterItsFileWhereThatIsPlain) {
  EXPECT_EQ(default_run_name("configs/teacher.cfg"), "teacher");
  EXPECT_EQ(default_run_name("teacher (1).cfg"), "teacher_1");
  EXPECT_EQ(default_run_name("a  b+c.v2.cfg"), "a_b_c.v2");
  EXPECT_EQ(default_run_name(".hidden.cfg"), "hidden");
  for (const std::string path : {"учитель.cfg", "учитель2.cfg", "(((.cfg", "größe.cfg"}) {
    EXPECT_THAT(error_of([&] { default_run_name(path); }), AllOf(StartsWith(path), HasSubstr("--set name="))) << path;
  }
  EXPECT_THROW(default_run_name(std::string(101, 'a') + ".cfg"), Error);

  const TemporaryFolder folder;
  const std::string spaced = folder.write("my run (2).cfg", "[[loss]]\ntype = 'cross_entropy'\n");
  const DistillConfig c = load_distill_config(spaced);
  EXPECT_EQ(c.run.name, "my_run_2");
  EXPECT_THAT(c.run.origin.note, HasSubstr("my_run_2"));
  EXPECT_EQ(load_distill_config(spaced, {"name=other"}).run.origin.note, "");
  EXPECT_EQ(load_train_config(folder.write("учитель.cfg", ""), {"name=7"}).name, "7");
}

// A key without effect is a mistake where it stands beside what silences it, not where it was inherited.
TEST(ConfigUnused, WhatIsInheritedMayBeWithoutEffect) {
  const TemporaryFolder folder;
  folder.write("base.cfg",
               "[schedule]\ntype = 'milestones'\nmilestones = [3]\ngamma = 0.5\n[optimizer]\nmomentum = 0.5\n");
  const std::string leaf =
      folder.write("leaf.cfg", "extends = 'base.cfg'\n[schedule]\ntype = 'cosine'\n[optimizer]\ntype = 'adam'\n");
  const TrainConfig c = load_train_config(leaf);
  EXPECT_TRUE(c.schedule.milestones.empty());
  EXPECT_EQ(c.optimizer.momentum, OptimizerConfig().momentum);
  EXPECT_EQ(c, train_config_of(parse_config_tree(to_toml(c), "again"), "x"));
  EXPECT_NO_THROW(load_train_config(folder / "base.cfg", {"schedule.type=constant"}));
  EXPECT_THAT(error_of([&] { load_train_config(leaf, {"schedule.milestones=[5]"}); }),
              StartsWith("--set schedule.milestones: [schedule] milestones = [...]: has no effect"));
  // So may a student inherit from its run.
  const std::string milestones = "[schedule]\ntype = 'milestones'\nmilestones = [3]\n[[student]]\nname = 'a'\n";
  const std::string loss = "[[student.loss]]\ntype = 'cross_entropy'\n";
  const DistillConfig run = read_distillation(milestones + "[student.schedule]\ntype = 'cosine'\n" + loss);
  EXPECT_TRUE(run.students[0].train.schedule.milestones.empty());
  EXPECT_EQ(distill_config_of(parse_config_tree(run.resolved, "again"), "x").resolved, run.resolved);
  EXPECT_THAT(
      error_of([&] { read_distillation(milestones + "[student.schedule]\ntype = 'cosine'\nt_0 = 3\n" + loss); }),
      StartsWith("t.cfg:8: [schedule] t_0 = 3: has no effect"));
  // A run's own record is taken as it is.
  folder.write("v1/run.json", "{}");
  const std::string record = folder.write("v1/config.cfg", "name = 'r'\n[optimizer]\ntype = 'adam'\nmomentum = 0.5\n");
  EXPECT_EQ(load_train_config(record).optimizer.momentum, OptimizerConfig().momentum);
}

// Every key that a resolved config lists stands in docs/config.md, those of one loss alone in docs/methods.md, as `key`.
void expect_documented(const ConfigTable& table, const std::set<std::string>& documented) {
  for (const auto& [key, value] : table) {
    EXPECT_TRUE(documented.contains(key)) << key << " is missing in docs/config.md";
    if (value.is_table()) expect_documented(value.table(), documented);
    if (const auto* const blocks = std::get_if<ConfigArray>(&value.data)) {
      for (const ConfigValue& block : *blocks) {
        if (block.is_table()) expect_documented(block.table(), documented);
      }
    }
  }
}

TEST(ConfigDocument, HasEveryKey) {
  const std::string page = test::read_file("docs/config.md") + test::read_file("docs/methods.md");
  std::set<std::string> documented;
  const std::regex quoted("`\\[*([a-z_0-9]+)\\]*`");
  for (std::sregex_iterator it(page.begin(), page.end(), quoted), end; it != end; ++it) documented.insert((*it)[1]);
  const DistillConfig all = read_distillation(kTeacherAndLoss +
                                              "[schedule]\ntype = 'cosine_restarts'\nt_0 = 2\n"
                                              "[[student]]\nname = 'a'\n");
  expect_documented(parse_config_tree(all.resolved, "all").table(), documented);
  const DistillConfig one = read_distillation(kTeacherAndLoss + "[schedule]\ntype = 'step'\nstep_epochs = 2\n");
  expect_documented(parse_config_tree(one.resolved, "one").table(), documented);
}

}  // namespace
}  // namespace retort
