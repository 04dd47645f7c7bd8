// What a file of weights is enough for: the network, its classes, its input.
#include "distill/checkpoint_path.h"
#include "distill/classifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "engine/autograd.h"
#include "tests/support/files.h"

namespace retort {
namespace {

using test::error_of;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Metadata = std::map<std::string, std::string>;

const Metadata kWhole = {{"arch", "resnet8"},
                         {"classes", "3"},
                         {"stem", "cifar"},
                         {"shortcut", "pad"},
                         {"input_size", "24 40"},
                         {"normalize_mean", "0.5 0.25 0.125"},
                         {"normalize_std", "0.5 1 2"},
                         {"class_names", "ape\nbee\ncat"}};

std::vector<NamedArray> some_weights(const std::string& shortcut = "pad") {
  ModelSpec spec;
  spec.arch = "resnet8";
  spec.classes = 3;
  spec.shortcut = shortcut;
  const auto model = make_model(spec);
  model->parameters().materialize({}, DType::f32, 7);
  return model->parameters().to_arrays();
}

NamedArray& find(std::vector<NamedArray>& arrays, const std::string& name) {
  for (NamedArray& array : arrays) {
    if (array.name == name) return array;
  }
  throw std::logic_error(name);
}

Classifier load(const std::string& path, const std::string& arch = "", const std::string& shortcut = "") {
  ClassifierOptions options;
  options.path = path;
  options.arch = arch;
  options.shortcut = shortcut;
  options.arch_hint = "give --arch";
  return load_classifier(options);
}

TEST(Classifier, AFileWithMetadataIsEnough) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", some_weights(), kWhole);
  const Classifier c = load(folder / "a.safetensors");
  EXPECT_EQ(c.model->spec().arch, "resnet8");
  EXPECT_EQ(c.model->spec().shortcut, "pad");
  EXPECT_EQ(c.model->spec().classes, 3);
  EXPECT_TRUE(c.model->folded());
  EXPECT_THAT(c.class_names, ElementsAre("ape", "bee", "cat"));
  EXPECT_EQ(c.height, 24);
  EXPECT_EQ(c.width, 40);
  ASSERT_TRUE(c.normalization);
  EXPECT_EQ(c.normalization->mean[1], 0.25);
  EXPECT_EQ(c.normalization->std[2], 2);
}

TEST(Classifier, AFileWithoutMetadataTakesTheArchFromTheCallerAndTheClassesFromTheWeights) {
  const TemporaryFolder folder;
  for (const char* name : {"fc.", "linear.", "module.fc."}) {
    std::vector<NamedArray> arrays = some_weights();
    for (const char* part : {"weight", "bias"}) find(arrays, std::string("fc.") + part).name = std::string(name) + part;
    write_safetensors(folder / "a.safetensors", arrays);
    const Classifier c = load(folder / "a.safetensors", "resnet8", "pad");
    EXPECT_EQ(c.model->spec().classes, 3) << name;
    EXPECT_TRUE(c.class_names.empty());
    EXPECT_EQ(c.class_name(2), "2");
    EXPECT_FALSE(c.normalization);
    EXPECT_EQ(c.height, 0);
  }
  EXPECT_THAT(error_of([&] { load(folder / "a.safetensors"); }),
              AllOf(HasSubstr("a.safetensors"), HasSubstr("--arch")));
  EXPECT_THAT(error_of([&] { load(folder / "a.safetensors", "resnet8"); }), HasSubstr("downsample"));
  std::vector<NamedArray> headless = some_weights();
  std::erase_if(headless, [](const NamedArray& array) { return array.name == "fc.weight"; });
  write_safetensors(folder / "b.safetensors", headless);
  EXPECT_THAT(error_of([&] { load(folder / "b.safetensors", "resnet8", "pad"); }), HasSubstr("how many classes"));
}

TEST(Classifier, WordsOfOthersUnderOurKeysAreLeftAlone) {
  const TemporaryFolder folder;
  Metadata theirs = kWhole;
  theirs["input_size"] = "[3, 32, 32]";
  theirs["normalize_std"] = "0.5 0 1";
  theirs["classes"] = "three";
  theirs["class_names"] = "ape\nbee\ncat\ndog";
  write_safetensors(folder / "a.safetensors", some_weights(), theirs);
  ClassifierOptions options;
  options.path = folder / "a.safetensors";
  // ParameterStore::load() compares the number of classes as text, so this one is refused.
  const auto load_all = [&] { return load_classifier(options); };
  EXPECT_THAT(error_of(load_all), HasSubstr("three"));
  theirs.erase("classes");
  write_safetensors(folder / "a.safetensors", some_weights(), theirs);
  const Classifier c = load_all();
  EXPECT_EQ(c.height, 0);
  EXPECT_FALSE(c.normalization);
  EXPECT_TRUE(c.class_names.empty());
}

TEST(Classifier, NamesMayBeFewerThanOutputs) {
  const TemporaryFolder folder;
  Metadata fewer = kWhole;
  fewer["class_names"] = "ape\nbee";
  write_safetensors(folder / "a.safetensors", some_weights(), fewer);
  EXPECT_THAT(load(folder / "a.safetensors").class_names, ElementsAre("ape", "bee", "2"));
}

TEST(Classifier, RefusesWhatIsOfNoUseBeforeTakingMemory) {
  const TemporaryFolder folder;
  Metadata huge = kWhole;
  huge["classes"] = "4000000000000";
  write_safetensors(folder / "a.safetensors", some_weights(), huge);
  EXPECT_THAT(error_of([&] { load(folder / "a.safetensors"); }), HasSubstr("4000000000000"));
  std::vector<NamedArray> nan = some_weights();
  const float bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(find(nan, "bn1.running_var").bytes.data(), &bad, sizeof bad);
  write_safetensors(folder / "a.safetensors", nan, kWhole);
  EXPECT_THAT(error_of([&] { load(folder / "a.safetensors"); }), AllOf(HasSubstr("running_var"), HasSubstr("NaN")));
  EXPECT_THAT(error_of([&] { load(folder / "absent"); }), HasSubstr("no such file"));
  EXPECT_THAT(error_of([&] { load(folder.path()); }), HasSubstr("no checkpoint"));
}

TEST(Classifier, ARunsFolderStandsForItsNewestVersionWithACheckpoint) {
  const TemporaryFolder folder;
  for (const char* version : {"v2", "v10", "v11"}) std::filesystem::create_directory(folder / version);
  write_safetensors(folder / "v2/best.safetensors", some_weights(), kWhole);
  write_safetensors(folder / "v10/last.safetensors", some_weights(), kWhole);
  EXPECT_EQ(resolve_checkpoint(folder.path()), folder / "v10/last.safetensors");
  EXPECT_EQ(resolve_checkpoint(folder / "v2"), folder / "v2/best.safetensors");
}

TEST(Classifier, ClassNamesFromAFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(read_class_names(folder.write("n.txt", "great ape \r\nbee\n\n"), 2), ElementsAre("great ape", "bee"));
  EXPECT_THAT(error_of([&] { read_class_names(folder / "n.txt", 3); }), AllOf(HasSubstr("2"), HasSubstr("3")));
  EXPECT_THAT(error_of([&] { read_class_names(folder.path(), 3); }), HasSubstr("cannot be read"));
}

}  // namespace
}  // namespace retort
