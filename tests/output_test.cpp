// What programs print and write: nothing is lost without a word, and nothing from a file commands a terminal.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/image_input.h"
#include "distill/report.h"
#include "tests/support/network_file.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::read_file;
using test::write_file;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Result = test::ProgramResult;

const fs::path kImages = fs::absolute("tests/fixtures/images");

void to_full_disk() {
  if (freopen("/dev/full", "w", stdout) == nullptr) _exit(99);
}

void from_nowhere() {
  if (freopen("/dev/null", "r", stdin) == nullptr) _exit(99);
}

class Output : public test::TinyRunTest {
 protected:
  void SetUp() override {
    TinyRunTest::SetUp();
    model_ = test::untrained_resnet8();
    metadata_ = test::resnet8_metadata();
    write_network("net.safetensors");
    fs::copy_file(kImages / "rgb.png", folder_ / "a.png");
  }

  void write_network(const std::string& name) const {
    write_safetensors(folder_ / name, model_->parameters().to_arrays(), metadata_);
  }

  // A run as ./train leaves it, without weights.
  void write_run(const std::string& name, const std::string& info) const {
    const fs::path folder = folder_ / "runs" / name;
    fs::create_directories(folder);
    write_file(folder / "run.json", info);
    write_file(folder / "config.cfg", "seed = 1\n");
  }

  static void expect_harmless(const Result& result) {
    EXPECT_EQ((result.out + result.err).find_first_of("\x1b\x07\x9b"), std::string::npos) << result.out << result.err;
  }

  std::unique_ptr<Model> model_;
  std::map<std::string, std::string> metadata_;
};

TEST_F(Output, WhatAFullDiskDoesNotTakeIsAnErrorOfEveryProgram) {
  write_run("one/v1", "{}");
  const std::vector<std::pair<const char*, std::vector<std::string>>> calls{
      {"predict", {"net.safetensors", "a.png"}},
      {"evaluate", {"net.safetensors", "--no-speed", "--device", "cpu"}},
      {"evaluate", {"net.safetensors", "--no-speed", "--device", "cpu", "--json"}},
      {"export", {"net.safetensors", "--safetensors", "copy.safetensors"}},
      {"runs", {}},
      {"runs", {"one", "--csv"}},
      {"dataset", {}},
      {"train", {"--help"}},
  };
  for (const auto& [program, arguments] : calls) {
    SCOPED_TRACE(program);
    expect_error(call(program, arguments, to_full_disk),
                 "error: standard output: cannot be written: No space left on device\n");
  }
}

TEST_F(Output, NothingFromAFileCommandsTheTerminal) {
  const std::string name = "\x1b]0;owned\x07\x1b[2J\u009b31m";  // in UTF-8, as safetensors demand
  const std::string attack = name + "\x9b";
  metadata_["class_names"].clear();
  for (int k = 0; k < 20; ++k) metadata_["class_names"] += name + std::to_string(k) + "\n";
  write_network("net.safetensors");
  const std::string picture = "x\x1b[31m.png";
  fs::copy_file(kImages / "rgb.png", folder_ / picture);
  const Result predicted = call("predict", {"net.safetensors", picture, "gone\x1b.png", "--device", "cpu"});
  EXPECT_THAT(predicted.out, AllOf(HasSubstr("x\\x1b[31m.png"), HasSubstr("\\x1b[2J\\u009b31m")));
  EXPECT_THAT(predicted.err, HasSubstr("gone\\x1b.png: no such file"));
  expect_harmless(predicted);

  std::vector<NamedArray> arrays = model_->parameters().to_arrays();
  arrays[0].name = name;
  write_safetensors(folder_ / "odd.safetensors", arrays, metadata_);
  const Result evaluated = call("evaluate", {"odd.safetensors", "--no-speed"});
  EXPECT_EQ(evaluated.exit_code, 1);
  expect_harmless(evaluated);
  expect_harmless(call("evaluate", {"none" + attack}));
  expect_harmless(call("evaluate", {"net.safetensors", "--split", attack}));

  write_run("one/v1",
            R"({"state": "\u001b[2J", "arch": "\u001b[31m", "students": {"s\u001b[1m": {"arch": "\u009b"}}})");
  write_run("two/v1", "{}");
  write_file(folder_ / "runs/one/v1/config.cfg", "dataset = \"\\u001b[2J\"\n");
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{}, {"one", "two"}, {"no" + attack}}) {
    expect_harmless(call("runs", arguments));
  }
  write_file(config(), std::string(test::kTinyConfig) + "[\"" + "\\u001b[2J" + "\"]\nx = 1\n");
  expect_harmless(train({}));
  expect_harmless(train({"--set", attack + "=1"}));
}

TEST_F(Output, NamesThatAreNoUtf8KeepNoProgramFromItsResults) {
  const std::string folder = "caf\xe9 \xcf\xe0";
  fs::create_directory(folder_ / folder);
  write_network(folder + "/net.safetensors");
  const std::vector<std::string> evaluate{folder + "/net.safetensors", "--no-speed", "--device", "cpu"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), evaluate.begin(), evaluate.end());
    return call("evaluate", more);
  };
  const Result json = with({"--json", "--output", "report"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  EXPECT_EQ(nlohmann::json::parse(json.out)["file"], "caf\uFFFD \uFFFD\uFFFD/net.safetensors");
  EXPECT_THAT(read_file(folder_ / "report/evaluation.json"), HasSubstr("caf\uFFFD"));

  ASSERT_EQ(
      train({"--set", "output.root=" + folder, "--set", "train.max_steps=1", "--set", "train.evaluate_test=false"})
          .exit_code,
      0);
  const Result runs = call("runs", {folder + "/tiny", folder + "/tiny/v1", "--json"});
  ASSERT_EQ(runs.exit_code, 0) << runs.err;
  EXPECT_EQ(nlohmann::json::parse(runs.out)["runs"].size(), 2u);

  const std::string names = "\xe9t\xe9\r\n";
  home_.write(
      "names.txt",
      names + std::string(
                  "b\r\nc\r\nd\r\ne\r\nf\r\ng\r\nh\r\ni\r\nj\r\nk\r\nl\r\nm\r\nn\r\no\r\np\r\nq\r\nr\r\ns\r\nt\r\n"));
  fs::copy_file(kImages / "rgb.png", folder_ / folder / "p.png");
  const Result predicted = call("predict", {"net.safetensors", folder, "--classes", "names.txt", "--top", "20", "--csv",
                                            "out.csv", "--logits", "out.safetensors", "--device", "cpu"});
  ASSERT_EQ(predicted.exit_code, 0) << predicted.err;
  EXPECT_THAT(predicted.out, HasSubstr("\uFFFDt\uFFFD "));
  EXPECT_THAT(read_file(folder_ / "out.csv"), AllOf(HasSubstr(folder + "/p.png,"), HasSubstr(",\xe9t\xe9,")));
  EXPECT_THAT(read_safetensors(folder_ / "out.safetensors").metadata.at("class_names"),
              ::testing::StartsWith("\uFFFDt\uFFFD\nb\n"));
}

TEST_F(Output, ClassNamesFromWindowsAreRead) {
  std::string names;
  for (char name = 'a'; name < 'a' + 20; ++name) names += std::string(1, name) + "\r\n";
  const auto predict = [&](const std::string& text) {
    home_.write("names.txt", text);
    return call("predict", {"net.safetensors", "a.png", "--classes", "names.txt", "--top", "20", "--csv", "out.csv"});
  };
  ASSERT_EQ(predict("\xef\xbb\xbf" + names).exit_code, 0);
  EXPECT_THAT(read_file(folder_ / "out.csv"), AllOf(HasSubstr(",a,"), Not(HasSubstr("\xbf")), Not(HasSubstr("\r"))));
  std::string wide;
  for (const char c : names) wide += {c, '\0'};
  expect_error(predict("\xff\xfe" + wide), AllOf(HasSubstr("names.txt: is UTF-16"), HasSubstr("UTF-8")));
  expect_error(predict(wide), HasSubstr("names.txt: is UTF-16"));
}

TEST_F(Output, LinkedFoldersOfPhotographsAreFollowed) {
  fs::create_directories(folder_ / "store/cats");
  fs::create_directories(folder_ / "photos/own");
  for (const char* name : {"store/cats/1.png", "store/cats/2.png", "photos/0.png", "photos/own/3.webp"})
    home_.write(name, "");
  fs::create_directory_symlink("../store/cats", folder_ / "photos/cats");
  fs::create_directory_symlink("../../photos", folder_ / "store/cats/round");
  fs::create_directory_symlink(".", folder_ / "photos/own/self");
  fs::create_symlink("nowhere", folder_ / "photos/lost");
  fs::create_symlink("nowhere.png", folder_ / "photos/lost.png");
  fs::create_symlink("loop", folder_ / "photos/loop");
  PassedOver passed_over;
  std::vector<std::string> names;
  for (const std::string& file : find_images({folder_ / "photos"}, &passed_over)) {
    names.push_back(file.substr((folder_ / "photos/").string().size()));
  }
  EXPECT_THAT(names, ElementsAre("0.png", "cats/1.png", "cats/2.png", "lost.png"));
  EXPECT_THAT(passed_over.errors, IsEmpty());
  EXPECT_THAT(passed_over.notes,
              ::testing::UnorderedElementsAre(HasSubstr("cats/round: a link back"), HasSubstr("own/self: a link back"),
                                              HasSubstr("photos/lost: a link to nowhere, which is not there"),
                                              HasSubstr("photos/loop: a link to loop"),
                                              HasSubstr("photos: 1 picture of another format (.webp) are left out")));
  const Result result = call("predict", {"net.safetensors", "photos"});
  EXPECT_THAT(result.err, AllOf(HasSubstr("note: photos/cats/round: a link back"),
                                HasSubstr("photos/lost.png: is a link to nowhere.png, which is not there")));
  fs::create_directory(folder_ / "others");
  home_.write("others/a.HEIC", "");
  EXPECT_THAT(error_of([&] { find_images({folder_ / "others"}); }),
              HasSubstr("but 1 picture of another format (.heic)"));
}

TEST_F(Output, LogitsThatAreNotFiniteAreNoPrediction) {
  std::vector<NamedArray> arrays = model_->parameters().to_arrays();
  for (NamedArray& array : arrays) {
    if (array.name != "fc.weight") continue;
    for (std::size_t i = 0; i < array.bytes.size(); i += sizeof(float)) {
      const float large = 3e38F;
      std::memcpy(array.bytes.data() + i, &large, sizeof large);
    }
  }
  write_safetensors(folder_ / "large.safetensors", arrays, metadata_);
  const Result result = call("predict", {"large.safetensors", "a.png", "--csv", "out.csv", "--device", "cpu"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("a.png: large.safetensors: the network's logit of class "),
                                HasSubstr("1 of 1 images could not be classified")));
  EXPECT_THAT(result.out, Not(HasSubstr("nan")));
  EXPECT_EQ(read_file(folder_ / "out.csv"), "file,label,probability\n");
}

TEST_F(Output, RunsAreRemoved) {
  for (const char* name : {"one/v1", "one/v2", "two/v1", "three/v1"}) write_run(name, R"({"state": "finished"})");
  fs::create_directories(folder_ / "elsewhere/v1");
  write_file(folder_ / "elsewhere/v1/precious", "data");
  fs::create_directory_symlink("../elsewhere", folder_ / "runs/linked");
  fs::create_directory_symlink("../../elsewhere", folder_ / "runs/two/v2");
  fs::create_directory_symlink("../../../elsewhere", folder_ / "runs/one/v2/inside");
  const auto exists = [&](const char* name) { return fs::exists(folder_ / "runs" / name); };

  expect_error(call("runs", {"rm", "one/v1"}, from_nowhere), HasSubstr("give --yes"));
  expect_error(call("runs", {"rm", "one", "ons", "--yes"}), HasSubstr("did you mean \"one\"?"));
  expect_error(call("runs", {"rm", "../elsewhere/v1", "--yes"}), HasSubstr("no such run or version"));
  expect_error(call("runs", {"rm", ".", "--yes"}), HasSubstr("no such run or version"));
  expect_error(call("runs", {"rm", "linked", "--yes"}), HasSubstr("linked: is a link to ../elsewhere"));
  expect_error(call("runs", {"rm", "two", "--yes"}), HasSubstr("two/v2: is a link to ../../elsewhere"));
  expect_error(call("runs", {"rm", "--yes"}), HasSubstr("names"), 2);
  expect_error(call("runs", {"--json", "rm", "one", "--yes"}), HasSubstr("stands alone"), 2);
  EXPECT_TRUE(exists("one/v1") && exists("one/v2") && exists("two/v1"));

  const Result version = call("runs", {"rm", "one/v1", "--yes"});
  EXPECT_EQ(version.exit_code, 0) << version.err;
  EXPECT_EQ(version.out, "removed runs/one/v1, finished, 0.0 MiB\n");
  EXPECT_TRUE(!exists("one/v1") && exists("one/v2"));
  const Result rest = call("runs", {"rm", "runs/one/", "three/v1", "three", "--yes"});
  EXPECT_EQ(std::count(rest.out.begin(), rest.out.end(), '\n'), 2) << rest.out << rest.err;
  EXPECT_FALSE(exists("one") || exists("three"));
  EXPECT_EQ(read_file(folder_ / "elsewhere/v1/precious"), "data");

  const pid_t child = start("train", {config().string(), "--set", "train.epochs=400"});
  while (test::steps_logged(run("runs")) < 1) usleep(1000);
  const Result active = call("runs", {"rm", "tiny", "--yes"});
  kill(child, SIGKILL);
  wait(child);
  EXPECT_EQ(active.exit_code, 1);
  EXPECT_THAT(active.err, HasSubstr("tiny/v1: is being trained"));
  EXPECT_EQ(call("runs", {"rm", "tiny", "--yes"}).exit_code, 0);
  EXPECT_FALSE(exists("tiny"));
}

ReportRow row(const std::string& name, const std::vector<double>& top1) {
  ReportRow row;
  row.name = name;
  for (const double value : top1) {
    Metrics m;
    m.top1 = value;
    m.samples = 10000;
    row.last.push_back(m);
  }
  return row;
}

TEST(Verdicts, SayTheDifferenceItsUncertaintyAndOneConclusion) {
  const auto verdict = [](const std::vector<double>& baseline, const std::vector<double>& student) {
    return verdicts(row("baseline", baseline), {row("kd", student)}).at(0);
  };
  EXPECT_EQ(verdict({0.70}, {0.75}),
            "kd: distillation helped: +5.00 points against the baseline's 70.00 % (± 1.26 for the choice of test "
            "images; one run each says nothing of seeds)");
  EXPECT_THAT(verdict({0.70}, {0.70}), AllOf(HasSubstr("no difference beyond chance"), HasSubstr("+0.00 points")));
  EXPECT_THAT(verdict({0.70}, {0.705}), AllOf(HasSubstr("no difference beyond chance"), HasSubstr("+0.50 points")));
  EXPECT_THAT(verdict({0.70}, {0.695}), AllOf(HasSubstr("no difference beyond chance"), HasSubstr("-0.50 points")));
  EXPECT_THAT(verdict({0.70}, {0.65}), AllOf(HasSubstr("did harm"), HasSubstr("-5.00 points")));
  EXPECT_THAT(verdict({1.0}, {1.0}), HasSubstr("no difference beyond chance"));
  // Seeds that differ by more than the gain make it one of chance, whatever the number of images.
  EXPECT_THAT(verdict({0.60, 0.80}, {0.65, 0.85}), AllOf(HasSubstr("beyond chance"), HasSubstr("images and seeds)")));
  EXPECT_THAT(verdict({0.70, 0.70, 0.701}, {0.72, 0.721, 0.72}), HasSubstr("distillation helped"));
  EXPECT_THAT(verdict({0.70}, {0.75, 0.76}), HasSubstr("the baseline's one run"));
  EXPECT_THAT(verdict({0.70, 0.71}, {0.75}), HasSubstr("the student's one run"));
  for (const double student : {0.6, 0.69, 0.7, 0.71, 0.8}) {
    const std::string text = verdict({0.7}, {student});
    const int conclusions = (text.find("helped") != text.npos) + (text.find("did harm") != text.npos) +
                            (text.find("not shown to help") != text.npos);
    EXPECT_EQ(conclusions, 1) << text;
  }
}

TEST(ReportTable, PrintsHugeLossesInFewCharacters) {
  ReportRow diverged = row("kd", {0.1, 0.2});
  diverged.last[0].loss = 1e240;
  diverged.last[1].loss = 3e240;
  EXPECT_THAT(report_table({diverged}), HasSubstr("2.0000e+240 ± 1.4142e+240"));
  std::istringstream folded(report_table({diverged}, 60));
  for (std::string line; std::getline(folded, line);) EXPECT_LE(display_width(line), 60u) << line;
}

}  // namespace
}  // namespace retort
