// ./evaluate and ./predict as a user starts them, and what they do with sizes, folders and patterns.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/dataset.h"
#include "data/image_file.h"
#include "data/image_input.h"
#include "data/resize.h"
#include "distill/prediction.h"
#include "engine/autograd.h"
#include "engine/safetensors.h"
#include "tests/support/network_file.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::read_file;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const fs::path kImages = fs::absolute("tests/fixtures/images");

TEST(InputPlan, DefaultsAndWhatAUserAsksFor) {
  const auto text = [](int h, int w, const char* resize, const char* crop) {
    return input_plan(h, w, resize, crop).text();
  };
  EXPECT_EQ(text(32, 32, "", ""), "resized to 32x32");
  EXPECT_EQ(text(24, 64, "", ""), "resized to 64x24");
  EXPECT_EQ(text(224, 224, "", ""), "shorter side to 256, middle 224x224");
  EXPECT_EQ(text(299, 299, "", ""), "shorter side to 342, middle 299x299");
  EXPECT_EQ(text(224, 224, "", "288"), "shorter side to 329, middle 288x288");
  EXPECT_EQ(text(224, 224, "232", ""), "shorter side to 232, middle 224x224");
  EXPECT_EQ(text(32, 32, "40", ""), "shorter side to 40, middle 32x32");
  EXPECT_EQ(text(224, 224, "320x240", ""), "resized to 320x240");
  EXPECT_EQ(text(224, 224, "320x240", "200x100"), "resized to 320x240, middle 200x100");
  for (const char* bad : {"0", "-1", "x", "12x", "x12", "1x2x3", "12 ", "large", "16385", "99999999999"}) {
    EXPECT_THAT(error_of([&] { input_plan(32, 32, bad, ""); }), AllOf(HasSubstr("--resize"), HasSubstr(bad)));
  }
  EXPECT_THAT(error_of([] { input_plan(224, 224, "128", ""); }), AllOf(HasSubstr("128"), HasSubstr("--crop")));
}

TEST(FindImages, FilesFoldersAndPatterns) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "a/deep");
  for (const char* name : {"b.jpg", "a/z.PNG", "a/deep/c.jpeg", "a/notes.txt", "odd[1].png"}) folder.write(name, "");
  const auto found = [&](std::vector<std::string> arguments) {
    std::vector<std::string> names;
    for (const std::string& file : find_images(arguments)) names.push_back(fs::relative(file, folder.path()).string());
    return names;
  };
  EXPECT_THAT(found({folder.path()}), ElementsAre("a/deep/c.jpeg", "a/z.PNG", "b.jpg", "odd[1].png"));
  EXPECT_THAT(found({folder / "b.jpg", folder / "a"}), ElementsAre("b.jpg", "a/deep/c.jpeg", "a/z.PNG"));
  EXPECT_THAT(found({folder / "*.jpg"}), ElementsAre("b.jpg"));
  EXPECT_THAT(found({folder / "odd[1].png"}), ElementsAre("odd[1].png"));
  EXPECT_THAT(found({folder / "absent.jpg"}), ElementsAre("absent.jpg"));
  EXPECT_THAT(error_of([&] { found({folder / "*.gif"}); }), HasSubstr("matches nothing"));
  fs::create_directory(folder / "empty");
  EXPECT_THAT(error_of([&] { found({folder / "empty"}); }), HasSubstr("no .jpg"));
}

using Result = test::ProgramResult;

class Measured : public test::ProgramTest {
 protected:
  // An untrained resnet8 for `shapes`, with all that a checkpoint says about itself.
  void SetUp() override {
    model_ = test::untrained_resnet8();
    metadata_ = test::resnet8_metadata();
    write_safetensors(folder_ / "net.safetensors", model_->parameters().to_arrays(), metadata_);
    write_safetensors(folder_ / "bare.safetensors", model_->parameters().to_arrays());
  }

  std::unique_ptr<Model> model_;
  std::map<std::string, std::string> metadata_;
};

TEST_F(Measured, EvaluateNeedsNothingButTheFile) {
  const Result table =
      call("evaluate", {"net.safetensors", "--device", "cpu", "--speed-seconds", "0.2", "--output", "report"});
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out,
              AllOf(HasSubstr("resnet8"), HasSubstr("top-1"), HasSubstr("shapes"), HasSubstr("multiply-adds"),
                    HasSubstr("latency"), HasSubstr("throughput"), HasSubstr("peak memory")));
  const Result json =
      call("evaluate", {"net.safetensors", "--json", "--no-speed", "--device", "cpu", "--teacher", "net.safetensors"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const auto object = nlohmann::json::parse(json.out);
  EXPECT_FALSE(object.contains("speed"));
  EXPECT_EQ(object["teacher"]["agreement"], 1.0);
  EXPECT_EQ(object["teacher"]["mean_logit_difference"], 0.0);
  EXPECT_EQ(object["parameters"], model_->parameters().parameter_count());
  // The same accuracy by another way: the forward pass of this process, image by image of the test set.
  const Dataset shapes = load_test_images("shapes");
  EXPECT_EQ(shapes.train.count, 0);
  EXPECT_EQ(object["images"], shapes.test.count);
  const autograd::NoGradGuard no_grad;
  const double mean[] = {0.4, 0.5, 0.6}, deviation[] = {0.2, 0.25, 0.3};
  std::vector<float> input;
  for (std::size_t i = 0; i < shapes.test.images.size(); ++i) {
    input.push_back(static_cast<float>((shapes.test.images[i] / 255.0 - mean[i % 3]) / deviation[i % 3]));
  }
  const std::vector<float> logits =
      model_->forward(Tensor::from(input, {shapes.test.count, 32, 32, 3}), {}).logits.to_host<float>();
  const ClassificationReport report = classification_report(logits, shapes.test.labels, 20);
  std::int64_t right = 0, wrong = 0;
  for (std::int64_t k = 0; k < 20; ++k) {
    right += report.count(k, k);
    for (std::int64_t other = 0; other < 20; ++other) {
      wrong += std::abs(
          object["confusion"][static_cast<std::size_t>(k)][static_cast<std::size_t>(other)].get<std::int64_t>() -
          report.count(k, other));
    }
  }
  EXPECT_LE(wrong,
            4);  // folding rounds otherwise, which may turn an image whose two best logits are equal but for that
  EXPECT_NEAR(object["top1"].get<double>(), static_cast<double>(right) / static_cast<double>(shapes.test.count), 0.002);
  EXPECT_NEAR(object["expected_calibration_error"].get<double>(), report.calibration_error, 0.002);
  const auto written = nlohmann::json::parse(read_file(folder_ / "report/evaluation.json"));
  EXPECT_EQ(written["top1"], object["top1"]);
  EXPECT_GE(written["speed"]["batches"].size(), 1u);
  EXPECT_THAT(read_file(folder_ / "report/confusion.csv"), HasSubstr(shapes.class_names[3]));
  const std::string per_class = read_file(folder_ / "report/per_class.csv");
  EXPECT_EQ(std::count(per_class.begin(), per_class.end(), '\n'), 21);
  EXPECT_GT(read_image_file(folder_ / "report/confusion.png").width, 200);
}

TEST_F(Measured, ANetworkIsNamedAsRunsNamesIt) {
  const auto put = [&](const std::string& place) {
    fs::create_directories(fs::path(folder_ / place));
    fs::copy_file(folder_ / "net.safetensors", fs::path(folder_ / place) / "best.safetensors");
  };
  put("runs/plain/v1");
  put("runs/plain/v2");
  put("runs/several/v1/alone");
  put("runs/several/v1/taught");
  put("elsewhere/several/v1/third");
  fs::create_directories(fs::path(folder_ / "plain"));  // a folder of the same name that holds no network
  const auto exported = [&](const std::string& name) {
    const Result result = call("export", {name, "--safetensors", "out.safetensors"});
    EXPECT_EQ(result.exit_code, 0) << name << ": " << result.err;
  };
  for (const char* name : {"plain", "plain/", "plain/v1", "runs/plain", "several/alone", "several/v1/taught/",
                           "runs/several/taught", "elsewhere/several/third"}) {
    exported(name);
  }
  const auto refused = [&](const std::string& name) {
    return call("export", {name, "--safetensors", "no.safetensors"});
  };
  expect_error(refused("several"), AllOf(HasSubstr("several students"), HasSubstr("runs/several/v1/alone")));
  expect_error(refused("several/alona"), AllOf(HasSubstr("no such student; did you mean"), HasSubstr("alone")));
  expect_error(refused("plian"), AllOf(HasSubstr("no such file or folder"), HasSubstr("plain")));
  expect_error(refused("runs/severel/alone"), HasSubstr("no such file or folder"));
  expect_error(refused(""), HasSubstr("empty"));
}

TEST_F(Measured, EvaluateSaysWhatIsMissing) {
  expect_error(call("evaluate", {"bare.safetensors"}), AllOf(HasSubstr("bare.safetensors"), HasSubstr("--arch")));
  expect_error(call("evaluate", {"bare.safetensors", "--arch", "resnet8"}), HasSubstr("--data"));
  expect_error(call("evaluate", {"bare.safetensors", "--arch", "resnet8", "--data", "shapes"}),
               HasSubstr("--normalize"));
  expect_error(call("evaluate", {"bare.safetensors", "--arch", "resnet9"}), HasSubstr("resnet8"));
  expect_error(call("evaluate", {"net.safetensors", "--data", "shape"}), HasSubstr("shapes"));
  expect_error(call("evaluate", {"net.safetensors", "--split", "validation"}), HasSubstr("config.cfg"));
  expect_error(call("evaluate", {"net.safetensors", "--teacher", "bare.safetensors"}), HasSubstr("--teacher-arch"));
  expect_error(call("evaluate", {"absent"}), HasSubstr("absent"));
  expect_error(call("evaluate", {}), HasSubstr("network"), 2);
  expect_error(call("evaluate", {"net.safetensors", "--split", "train"}), HasSubstr("split"), 2);
}

TEST_F(Measured, EvaluateKnowsTheValidationSplitOfARun) {
  home_.write("tiny.cfg",
              "name = \"tiny\"\nseed = 5\ndevice = \"cpu\"\n[data]\ndataset = \"shapes\"\nvalidation = 300\n"
              "fraction = 0.02\nbatch_size = 64\n[model]\narch = \"resnet8\"\n[train]\nepochs = 1\n");
  const Result trained = call("train", {"tiny.cfg"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const auto info = nlohmann::json::parse(read_file(folder_ / "runs/tiny/v1/run.json"));
  const auto top1 = [&](const std::string& path, const std::string& split) {
    const Result result = call("evaluate", {path, "--split", split, "--json", "--no-speed", "--device", "cpu"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out)["top1"].get<double>();
  };
  // An image or two may change sides when batch normalisation is folded.
  EXPECT_NEAR(top1("runs/tiny", "validation"), info["best_validation_top1"].get<double>(), 2.1 / 300);
  EXPECT_NEAR(top1("runs/tiny/v1/last.safetensors", "test"), info["test_last_top1"].get<double>(), 3.0 / 1000);
}

TEST_F(Measured, PredictNeedsNothingButTheFile) {
  fs::create_directory(folder_ / "photos");
  fs::copy_file(kImages / "420.jpg", folder_ / "photos/a, b.jpg");
  fs::copy_file(kImages / "rgba.png", folder_ / "photos/c.png");
  home_.write("photos/broken.jpg", read_file((kImages / "420.jpg").string()).substr(0, 500));
  home_.write("photos/empty.png", "");
  const Result result = call("predict", {"net.safetensors", "photos", "--device", "cpu", "--top", "2", "--csv",
                                         "out.csv", "--logits", "out.safetensors"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, AllOf(HasSubstr("photos/a, b.jpg"), HasSubstr("thing "), Not(HasSubstr("broken"))));
  EXPECT_THAT(result.err, AllOf(HasSubstr("photos/broken.jpg: damaged JPEG"), HasSubstr("photos/empty.png: is empty"),
                                HasSubstr("2 of 4 images")));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 3);

  const WeightFile logits = read_safetensors(folder_ / "out.safetensors");
  EXPECT_EQ(logits.metadata.at("files"), "[\"photos/a, b.jpg\",\"photos/c.png\"]");
  ASSERT_EQ(logits.arrays[0].shape, (std::vector<std::int64_t>{2, 20}));
  std::vector<float> values(40);
  std::memcpy(values.data(), logits.arrays[0].bytes.data(), 160);
  // The same by hand.
  const Image image = resized(read_image_file((kImages / "rgba.png").string()), 32, 32);
  const double mean[] = {0.4, 0.5, 0.6}, deviation[] = {0.2, 0.25, 0.3};
  std::vector<float> input;
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    input.push_back(static_cast<float>((image.pixels[i] / 255.0 - mean[i % 3]) / deviation[i % 3]));
  }
  const autograd::NoGradGuard no_grad;
  const std::vector<float> expected = model_->forward(Tensor::from(input, {1, 32, 32, 3}), {}).logits.to_host<float>();
  double sum = 0, largest = 0;
  for (const float v : expected) largest = std::max(largest, std::abs(static_cast<double>(v)));
  for (std::size_t k = 0; k < 20; ++k) {
    EXPECT_NEAR(values[20 + k], expected[k], 1e-4 * largest) << k;
    sum += std::exp(static_cast<double>(values[20 + k]));
  }
  const auto best = std::max_element(values.begin() + 20, values.end()) - (values.begin() + 20);
  std::istringstream csv(read_file(folder_ / "out.csv"));
  std::string header, first, second;
  std::getline(csv, header);
  std::getline(csv, first);
  std::getline(csv, second);
  EXPECT_EQ(header, "file,label,probability,label_2,probability_2");
  EXPECT_THAT(first, ::testing::StartsWith("\"photos/a, b.jpg\",thing "));
  const std::string wanted =
      fmt::format("photos/c.png,thing {},{:.6f},", best,
                  std::exp(static_cast<double>(values[20 + static_cast<std::size_t>(best)])) / sum);
  EXPECT_THAT(second, ::testing::StartsWith(wanted));
}

TEST_F(Measured, PredictTakesMoreThanABatchInOrder) {
  std::string expected = "file,label,probability\n";
  std::vector<std::string> arguments{"net.safetensors", "--top", "1", "--csv", "out.csv", "--device", "cpu"};
  for (int i = 0; i < 70; ++i) {
    const std::string name = fmt::format("{:02}.png", i);
    fs::copy_file(kImages / (i % 2 == 0 ? "rgb.png" : "bits.png"), folder_ / name);
    arguments.push_back(name);
  }
  EXPECT_EQ(call("predict", arguments).exit_code, 0);
  std::istringstream csv(read_file(folder_ / "out.csv"));
  std::string line;
  std::getline(csv, line);
  std::vector<std::string> answers(2);
  for (int i = 0; std::getline(csv, line); ++i) {
    EXPECT_EQ(line.substr(0, 7), fmt::format("{:02}.png,", i));
    std::string& answer = answers[static_cast<std::size_t>(i % 2)];
    if (answer.empty()) answer = line.substr(7);
    EXPECT_EQ(line.substr(7, line.rfind(',') - 7), answer.substr(0, answer.rfind(','))) << i;
  }
}

TEST_F(Measured, PredictSaysWhatIsMissing) {
  fs::copy_file(kImages / "rgb.png", folder_ / "a.png");
  home_.write("names.txt", "one\ntwo\n");
  expect_error(call("predict", {"bare.safetensors", "a.png"}), HasSubstr("--arch"));
  expect_error(call("predict", {"bare.safetensors", "a.png", "--arch", "resnet8"}), HasSubstr("--normalize"));
  expect_error(call("predict", {"net.safetensors", "a.png", "--classes", "names.txt"}),
               HasSubstr("names.txt: 2 class names"));
  expect_error(call("predict", {"net.safetensors", "*.gif"}), HasSubstr("matches nothing"));
  expect_error(call("predict", {"net.safetensors", "a.png", "--crop", "big"}), HasSubstr("--crop big"));
  expect_error(call("predict", {"net.safetensors", "a.png", "--csv", "no/folder/out.csv"}), HasSubstr("no/folder"));
  expect_error(call("predict", {"net.safetensors"}), HasSubstr("images"), 2);
  const Result bare = call("predict", {"bare.safetensors", "a.png", "--arch", "resnet8", "--normalize", "half"});
  EXPECT_EQ(bare.exit_code, 0) << bare.err;
  EXPECT_THAT(bare.out, HasSubstr("resized to 32x32"));
}

TEST(Pretrained, ResNet20ScoresAsPublished) {
  const fs::path root = dataset_root();
  const fs::path file = root / "pretrained_resnet_cifar10/resnet20-12fca82f.th";
  if (!fs::exists(file) || !fs::exists(root / "cifar-10-batches-bin")) GTEST_SKIP() << root << " lacks " << file;
  EvaluationRequest request;
  request.network.options.path = file.string();
  request.network.options.arch = "resnet20";
  request.network.options.shortcut = "pad";
  request.network.normalize = "imagenet";
  request.dataset = "cifar10";
  request.root = root.string();
  request.device = "cpu";
  request.speed_seconds = 0;
  const std::string table = evaluation_table(evaluate_classifier(request));
  EXPECT_THAT(table, AllOf(HasSubstr("91.73 %"), HasSubstr("269,722 parameters, 40.6 M multiply-adds")));
}

}  // namespace
}  // namespace retort
