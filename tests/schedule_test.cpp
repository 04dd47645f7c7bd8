#include "engine/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "distill/config.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using Type = ScheduleOptions::Type;

TEST(Schedule, ConstantAndLinearWarmUp) {
  ScheduleOptions o;
  o.base_lr = 0.5;
  const Schedule plain(o, 10, 100);
  EXPECT_EQ(plain.lr_at(0), 0.5);
  EXPECT_EQ(plain.lr_at(99), 0.5);
  EXPECT_EQ(plain.total_steps(), 100);
  o.warmup_epochs = 0.5;  // 5 steps
  const Schedule warm(o, 10, 100);
  EXPECT_DOUBLE_EQ(warm.lr_at(0), 0.1);
  EXPECT_DOUBLE_EQ(warm.lr_at(3), 0.4);
  EXPECT_EQ(warm.lr_at(4), 0.5);
  EXPECT_EQ(warm.lr_at(5), 0.5);
}

TEST(Schedule, CosineEndsAtItsMinimum) {
  ScheduleOptions o;
  o.type = Type::cosine;
  o.base_lr = 0.5;
  o.min_lr = 0.001;
  const Schedule s(o, 5, 10);
  EXPECT_EQ(s.lr_at(0), 0.5);
  // CosineAnnealingLR's closed form with T_max = 10, evaluated in Python.
  EXPECT_DOUBLE_EQ(s.lr_at(3), 0.397152420446972);
  EXPECT_DOUBLE_EQ(s.lr_at(5), 0.2505);
  EXPECT_DOUBLE_EQ(s.lr_at(9), 0.013211399184359193);
  EXPECT_DOUBLE_EQ(s.lr_at(10), 0.001);
  EXPECT_DOUBLE_EQ(s.lr_at(1000), 0.001);
}

TEST(Schedule, CosineBeginsAfterTheWarmUp) {
  ScheduleOptions o;
  o.type = Type::cosine;
  o.base_lr = 0.5;
  o.min_lr = 0.001;
  o.warmup_epochs = 2;
  const Schedule s(o, 5, 20);  // 10 steps up, 10 down
  EXPECT_DOUBLE_EQ(s.lr_at(0), 0.05);
  EXPECT_EQ(s.lr_at(9), 0.5);
  EXPECT_EQ(s.lr_at(10), 0.5);
  EXPECT_DOUBLE_EQ(s.lr_at(13), 0.397152420446972);
  EXPECT_DOUBLE_EQ(s.lr_at(19), 0.013211399184359193);
  // A run cut short by max_steps may end within its warm-up.
  EXPECT_DOUBLE_EQ(Schedule(o, 5, 4).lr_at(3), 0.2);
}

TEST(Schedule, StepAndMilestonesCountEpochs) {
  ScheduleOptions o;
  o.type = Type::step;
  o.base_lr = 0.1;
  o.step_epochs = 7;
  const Schedule s(o, 3, 100);
  EXPECT_EQ(s.lr_at(20), 0.1);  // the last step of epoch 6
  EXPECT_DOUBLE_EQ(s.lr_at(21), 0.01);
  EXPECT_DOUBLE_EQ(s.lr_at(42), 0.001);

  o.type = Type::milestones;
  o.milestones = {2, 4};
  o.gamma = 0.2;
  o.warmup_epochs = 1;
  const Schedule m(o, 3, 100);
  EXPECT_DOUBLE_EQ(m.lr_at(0), 0.1 / 3);
  EXPECT_EQ(m.lr_at(5), 0.1);
  EXPECT_DOUBLE_EQ(m.lr_at(6), 0.02);
  EXPECT_DOUBLE_EQ(m.lr_at(11), 0.02);
  EXPECT_DOUBLE_EQ(m.lr_at(12), 0.004);
  EXPECT_DOUBLE_EQ(m.lr_at(99), 0.004);
}

// Values of CosineAnnealingWarmRestarts' formula at fractional epochs s / E, evaluated in Python.
TEST(Schedule, WarmRestartsMatchPyTorchsFormula) {
  ScheduleOptions o;
  o.type = Type::cosine_restarts;
  o.base_lr = 0.1;
  o.min_lr = 0.01;
  o.t_0 = 2;
  o.t_mult = 3;
  const Schedule growing(o, 4, 1000);
  const std::vector<std::pair<int, double>> expected = {{0, 0.1},
                                                        {1, 0.0965745789630079},
                                                        {7, 0.013425421036992097},
                                                        {8, 0.1},
                                                        {9, 0.09961501876182148},
                                                        {20, 0.05500000000000001},
                                                        {31, 0.010384981238178534},
                                                        {32, 0.1},
                                                        {100, 0.010683651114450639}};
  for (const auto& [step, lr] : expected) EXPECT_NEAR(growing.lr_at(step), lr, 1e-15) << step;
  o.t_0 = 3;
  o.t_mult = 1;
  const Schedule equal(o, 4, 1000);
  const std::vector<std::pair<int, double>> expected_equal = {
      {0, 0.1},  {5, 0.06664685702961344},  {11, 0.011533337816991932},
      {12, 0.1}, {13, 0.09846666218300808}, {30, 0.05500000000000001}};
  for (const auto& [step, lr] : expected_equal) EXPECT_NEAR(equal.lr_at(step), lr, 1e-15) << step;
  o.warmup_epochs = 1;
  const Schedule warm(o, 4, 1000);
  for (const auto& [step, lr] : expected_equal) EXPECT_NEAR(warm.lr_at(step + 4), lr, 1e-15) << step;
}

TEST(Schedule, RefusesNonsense) {
  ScheduleOptions o;
  test::error_of([&] { Schedule(o, 0, 10); });
  test::error_of([&] { Schedule(o, 10, 0); });
  o.base_lr = NAN;
  test::error_of([&] { Schedule(o, 10, 10); });
  o = {};
  o.t_0 = 0;
  test::error_of([&] { Schedule(o, 10, 10); });
}

TEST(Schedule, ComesFromTheConfig) {
  const ConfigValue tree = parse_config_tree(
      "[optimizer]\nlr = 0.3\n[schedule]\ntype = 'cosine_restarts'\nt_0 = 9\nt_mult = 2\nmin_lr = 1e-5\nwarmup_epochs "
      "= 1.5",
      "t");
  const ScheduleOptions o = schedule_options(train_config_of(tree, "t"));
  EXPECT_EQ(o.type, Type::cosine_restarts);
  EXPECT_EQ(o.base_lr, 0.3);
  EXPECT_EQ(o.t_0, 9);
  EXPECT_EQ(o.t_mult, 2);
  EXPECT_EQ(o.min_lr, 1e-5);
  EXPECT_EQ(o.warmup_epochs, 1.5);
  for (const auto& [rest, type] :
       std::vector<std::pair<std::string, Type>>{{"'constant'", Type::constant},
                                                 {"'cosine'", Type::cosine},
                                                 {"'step'\nstep_epochs = 3", Type::step},
                                                 {"'milestones'\nmilestones = [1]", Type::milestones}}) {
    const auto text = "[schedule]\ntype = " + rest;
    EXPECT_EQ(schedule_options(train_config_of(parse_config_tree(text, "t"), "t")).type, type);
  }
}

}  // namespace
}  // namespace retort
