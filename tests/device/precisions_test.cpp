// All losses, drawn and combined teachers, several students, schedules, gradient norms and a short last batch, in every
// precision and order on the stand-in device: equal to the bit across orders, and what the CPU computes within the
// precision's bound. One test a precision, so that they run side by side.
#include "tests/device/training_orders.h"

namespace retort::standin {
namespace {

const std::vector<std::string> kStudents = {"logits", "adversary", "maps", "relations"};

// A small learning rate: training multiplies what a precision rounds, and one of 0.05 in nine steps to the third digit
// in f32. In training_test.cpp f64 shows that larger steps are right.
const std::string kSmallSteps = "[schedule]\nwarmup_epochs = 100\n[train]\nepochs = 3\n";

// Each of the losses once. Their weights keep the sums near 1, so that no term drowns the others; that of epochs makes
// steps of two kinds.
const std::string kAllLosses = [] {
  std::string text = kSmallSteps +
                     "[distill]\ncombine = \"random\"\ngradient_norms_every = 4\n"
                     "[[teacher]]\npath = \"teacher\"\n[[teacher]]\npath = \"second teacher\"\n";
  const auto student = [&](const std::string& name) { text += "[[student]]\nname = \"" + name + "\"\n"; };
  const auto loss = [&](const std::string& type, const std::string& keys = "") {
    text += "[[student.loss]]\ntype = \"" + type + "\"\n" + keys;
  };
  student("logits");
  loss("cross_entropy", "weight = 0.2\n");
  loss("soft_targets", "weight = 0.05\n");
  loss("soft_cross_entropy", "weight = 0.05\n");
  loss("logit_mse", "weight = 0.1\n");
  loss("dkd", "weight = 0.01\nschedule = { type = \"from\", epochs = 2 }\n");
  loss("dist", "weight = 0.02\nstandardize = true\n");
  student("adversary");
  loss("discriminator", "weight = 0.2\nadversarial = true\n");
  loss("cross_entropy", "weight = 0.2\n");
  student("maps");
  loss("similarity_preserving");
  loss("attention_transfer", "weight = 10\n");
  loss("fitnet", "weight = 0.1\n");
  loss("feature_cosine", "weight = 0.1\n");
  loss("vid", "weight = 0.01\nschedule = { type = \"until\", epochs = 2 }\n");
  loss("nst", "weight = 0.1\n");
  student("relations");
  loss("rkd", "weight = 0.02\n");
  loss("distance_metric");
  loss("pkt", "weight = 100\n");
  loss("cc", "weight = 0.01\n");
  return text;
}();

struct Bound {
  const char* precision;
  double relative;
};

class Precisions : public TrainingOrders, public testing::WithParamInterface<Bound> {};

TEST_P(Precisions, OfAllLossesAgreeInEveryOrder) {
  const TinyRun device = expect_the_same_bits(kAllLosses, kStudents, GetParam().precision);
  expect_near(device, run(kAllLosses, "", kStudents, GetParam().precision), GetParam().relative);
}

TEST_P(Precisions, OfTrainingAgreeInEveryOrder) {
  const TinyRun device = expect_the_same_bits(kSmallSteps, {""}, GetParam().precision);
  expect_near(device, run(kSmallSteps, "", {""}, GetParam().precision), GetParam().relative);
}

// The combinations that are not drawn.
TEST_P(Precisions, OfCombinedTeachersAgreeInEveryOrder) {
  for (const std::string combine : {"mean_softmax", "mean_logits"}) {
    const std::string config = kSmallSteps + "[distill]\ncombine = \"" + combine +
                               "\"\n[[teacher]]\npath = \"teacher\"\n[[teacher]]\npath = \"second teacher\"\n"
                               "[[loss]]\ntype = \"soft_targets\"\n[[loss]]\ntype = \"fitnet\"\nteacher = 2\n";
    const TinyRun device = expect_the_same_bits(config, {""}, GetParam().precision);
    expect_near(device, run(config, "", {""}, GetParam().precision), GetParam().relative);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, Precisions,
                         testing::Values(Bound{"f64", 1e-9}, Bound{"f32", 1e-3}, Bound{"tf32", 5e-3},
                                         Bound{"bf16", 5e-2}),
                         [](const auto& each) { return std::string(each.param.precision); });

// A run that is cut - between steps, in an epoch's middle, in a validation - and resumed, each time in another order,
// ends as one that was left alone.
TEST_F(TrainingOrders, ARunThatIsCutAndResumedInAnotherOrderEndsTheSame) {
  const std::vector<std::string> students = {"kd", "plain"};
  const std::string config =
      "[train]\nepochs = 2\n[distill]\ncombine = \"random\"\n[[teacher]]\npath = \"teacher\"\n"
      "[[teacher]]\npath = \"second teacher\"\n[[student]]\nname = \"kd\"\n[[student.loss]]\ntype = \"soft_targets\"\n"
      "[[student.loss]]\ntype = \"fitnet\"\n[[student]]\nname = \"plain\"\n[[student.loss]]\ntype = "
      "\"cross_entropy\"\n";
  for (const char* precision : {"f32", "bf16"}) {
    const TinyRun whole = run(config, "late", students, precision);
    for (int cut = 1; cut < 12; cut += 2) {
      const std::string root = std::string(precision) + std::to_string(cut);
      SCOPED_TRACE(root);
      int asked = 0;
      {
        set_order(kOrders[static_cast<std::size_t>(cut) % kOrders.size()]);
        test::TinyTraining training(home_.path(), config, kStandin, precision);
        training.stop_requested = [&] { return ++asked == cut; };
        ASSERT_FALSE(run_on_stream(training, root).finished);
      }
      set_order(kOrders[static_cast<std::size_t>(cut + 1) % kOrders.size()]);
      test::TinyTraining training(home_.path(), config, kStandin, precision);
      EXPECT_TRUE(run_on_stream(training, root, true).finished);
      const TinyRun resumed = result_of(training, root, students);
      EXPECT_EQ(resumed.lines, whole.lines);
      EXPECT_TRUE(resumed.files == whole.files);
    }
  }
}

}  // namespace
}  // namespace retort::standin
