// A batch of one image where a network normalises single values is refused before anything is trained, and only there.
#include "distill/batch_of_one.h"

#include "tests/support/program_test.h"
#include "tests/support/tiny_training.h"

namespace retort {
namespace {

using test::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

class BatchOfOne : public ::testing::Test {
 protected:
  // Of 17 training images; the learners' networks see 8x8.
  static std::vector<Learner> learners(const TrainConfig& config, const Session& session,
                                       const std::vector<std::string>& names) {
    std::vector<Learner> made;
    for (const std::string& name : names) {
      TrainConfig own = config;
      if (name.ends_with("small")) {
        own.model.arch = "resnet8";
        own.model.stem = "cifar";
      }
      std::unique_ptr<Model> model = make_network(own, session);
      auto objective = std::make_unique<CrossEntropyObjective>(*model, 0);
      made.emplace_back(name, name, own, std::move(model), std::move(objective), session);
    }
    return made;
  }

  static TrainConfig config(int batch_size, const std::string& stem) {
    TrainConfig c;
    c.data.batch_size = batch_size;
    c.model.arch = stem == "cifar" ? "resnet8" : "resnet10";
    c.model.stem = stem;
    return c;
  }

  static std::string refusal(const TrainConfig& c, const Session& session,
                             const std::vector<std::string>& names = {""}) {
    return error_of([&] { check_batch_of_one(c, session, learners(c, session, names), nullptr); });
  }

  static void expect_fine(const TrainConfig& c, const Session& session) {
    const std::vector<Learner> made = learners(c, session, {""});
    const std::vector<NamedArray> before = made[0].model->parameters().to_arrays();
    EXPECT_NO_THROW(check_batch_of_one(c, session, made, nullptr));
    const std::vector<NamedArray> after = made[0].model->parameters().to_arrays();
    for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i].bytes, after[i].bytes) << before[i].name;
  }
};

TEST_F(BatchOfOne, IsRefusedBeforeTheFirstStepWhereTheNetworkEndsAtOnePixel) {
  const Session session = test::tiny_session(29, 12);
  EXPECT_THAT(refusal(config(16, "imagenet"), session),
              AllOf(HasSubstr("[data] batch_size = 16: 17 training images leave a last batch of one"),
                    HasSubstr("resnet10 cannot be trained"), HasSubstr("such as 15")));
  EXPECT_THAT(refusal(config(4, "imagenet"), session), HasSubstr("such as 3"));
  EXPECT_THAT(refusal(config(2, "imagenet"), session), HasSubstr("such as 3"));
  EXPECT_THAT(refusal(config(1, "imagenet"), session), AllOf(HasSubstr("every batch has one"), HasSubstr("such as 3")));
  EXPECT_THAT(refusal(config(8, "imagenet"), test::tiny_session(13, 12)), HasSubstr("there is one training image"));
  // Only the student that cannot is named.
  EXPECT_THAT(refusal(config(8, "imagenet"), session, {"small", "large"}), HasSubstr("the student large (resnet10)"));
}

TEST_F(BatchOfOne, IsFineElsewhere) {
  const Session session = test::tiny_session(29, 12);
  expect_fine(config(16, "cifar"), session);  // ends at 2x2
  expect_fine(config(1, "cifar"), session);
  expect_fine(config(6, "imagenet"), session);   // leaves five
  expect_fine(config(17, "imagenet"), session);  // leaves none
  expect_fine(config(64, "imagenet"), session);
  TrainConfig short_run = config(16, "imagenet");
  short_run.train.max_steps = 1;  // ends before it
  expect_fine(short_run, session);
}

}  // namespace
}  // namespace retort
