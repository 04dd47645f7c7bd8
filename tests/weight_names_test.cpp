// Names of other people's networks: each way of naming is written here as it is there, made from ours by rules of this
// file's own.
#include "engine/weight_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <vector>

#include "engine/array_match.h"
#include "tests/support/foreign_weights.h"

namespace retort {
namespace {

using test::error_of;
using test::renamed;
using test::Renaming;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<WantedArray> wanted_by(const std::string& arch) {
  return make_model({.arch = arch, .classes = 3})->parameters().wanted();
}

// Names and shapes alone.
WeightFile file_of(
    const std::string& arch, const Renaming& rename = [](const std::string& n) { return n; }) {
  WeightFile file;
  file.path = "mem";
  for (const WantedArray& wanted : wanted_by(arch)) {
    file.arrays.push_back({rename(wanted.name), FileType::f32, wanted.shape, {}});
  }
  return file;
}

void add(WeightFile& file, const std::string& name, const std::vector<std::int64_t>& shape) {
  file.arrays.push_back({name, FileType::f32, shape, {}});
}

Renaming by(const std::vector<std::pair<std::string, std::string>>& rules) {
  std::vector<std::pair<std::regex, std::string>> compiled;
  for (const auto& [from, to] : rules) compiled.emplace_back(from, to);
  return [compiled](std::string name) {
    for (const auto& [from, to] : compiled) name = std::regex_replace(name, from, to);
    return name;
  };
}

// Every array of the network is found under the name that `rename` gave it.
void expect_all_found(const std::string& arch, const Renaming& rename) {
  const WeightFile file = file_of(arch, rename);
  const ArrayMatch match = match_arrays(file, wanted_by(arch));
  EXPECT_THAT(match.missing, IsEmpty());
  EXPECT_THAT(match.unexpected, IsEmpty());
  EXPECT_THAT(match.passed_over, IsEmpty());
  for (const auto& [name, array] : match.found) EXPECT_EQ(array->name, rename(name));
}

TEST(WeightNames, OfOthersAreThoseOfTorchvision) {
  const std::map<std::string, Renaming> namings = {
      {"kuangliu", by({{"downsample", "shortcut"}, {"^fc", "linear"}})},
      {"weiaicunzai", by({{"^conv1", "conv1.0"},
                          {"^bn1", "conv1.1"},
                          {R"(^(layer\d\.\d+)\.conv1)", "$1.residual_function.0"},
                          {R"(^(layer\d\.\d+)\.bn1)", "$1.residual_function.1"},
                          {R"(^(layer\d\.\d+)\.conv2)", "$1.residual_function.3"},
                          {R"(^(layer\d\.\d+)\.bn2)", "$1.residual_function.4"},
                          {R"(^(layer\d\.\d+)\.conv3)", "$1.residual_function.6"},
                          {R"(^(layer\d\.\d+)\.bn3)", "$1.residual_function.7"},
                          {"downsample", "shortcut"},
                          {"^layer4", "conv5_x"},
                          {"^layer3", "conv4_x"},
                          {"^layer2", "conv3_x"},
                          {"^layer1", "conv2_x"}})},
      {"Hugging Face", by({{"^conv1", "resnet.embedder.embedder.convolution"},
                           {"^bn1", "resnet.embedder.embedder.normalization"},
                           {R"((layer\d\.\d+)\.conv1)", "$1.layer.0.convolution"},
                           {R"((layer\d\.\d+)\.bn1)", "$1.layer.0.normalization"},
                           {R"((layer\d\.\d+)\.conv2)", "$1.layer.1.convolution"},
                           {R"((layer\d\.\d+)\.bn2)", "$1.layer.1.normalization"},
                           {R"((layer\d\.\d+)\.conv3)", "$1.layer.2.convolution"},
                           {R"((layer\d\.\d+)\.bn3)", "$1.layer.2.normalization"},
                           {R"(downsample\.0)", "shortcut.convolution"},
                           {R"(downsample\.1)", "shortcut.normalization"},
                           {R"(^layer1\.)", "resnet.encoder.stages.0.layers."},
                           {R"(^layer2\.)", "resnet.encoder.stages.1.layers."},
                           {R"(^layer3\.)", "resnet.encoder.stages.2.layers."},
                           {R"(^layer4\.)", "resnet.encoder.stages.3.layers."},
                           {"^fc", "classifier.1"}})},
      {"OpenMMLab", by({{"^", "backbone."}, {R"(^backbone\.fc)", "head.fc"}})},
      {"a normaliser in front", by({{"^", "1."}})},
      {"a Dropout before the last layer", by({{"^fc", "fc.1"}})},
      {"timm and Cadene", by({{"^fc", "last_linear"}})},
      {"classifier", by({{"^fc", "classifier"}, {"^", "net."}})},
      {"wrappers in any order, repeated", by({{"^", "module._orig_mod.model.module.net.backbone."}})},
      {"a wrapper around each part", by({{R"(^(layer\d)\.)", "$1._orig_mod."}, {"^fc", "fc.module"}})},
  };
  for (const auto& [who, rename] : namings) {
    for (const char* arch : {"resnet18", "resnet50"}) {
      SCOPED_TRACE(who + ", " + arch);
      expect_all_found(arch, rename);
    }
    for (const char* prefix : {"module.", "_orig_mod.model."}) {
      SCOPED_TRACE(prefix + who);
      expect_all_found("resnet14", [&, p = std::string(prefix)](const std::string& name) { return p + rename(name); });
    }
  }
}

TEST(WeightNames, WhatNoNetworkHasIsPassedOverWithANote) {
  WeightFile file = file_of("resnet14", by({{"^", "module."}}));
  add(file, "n_averaged", {});
  ArrayMatch match = match_arrays(file, wanted_by("resnet14"));
  EXPECT_THAT(match.missing, IsEmpty());
  EXPECT_THAT(match.unexpected, IsEmpty());
  EXPECT_THAT(match.passed_over, ElementsAre("n_averaged"));
  EXPECT_THAT(match.note, HasSubstr("n_averaged"));
  add(file, "criterion.weight", {20});
  add(file, "module.mean", {1, 3, 1, 1});
  add(file, "module.layer1.0.conv1.total_ops", {1});  // a profiler's
  match = match_arrays(file, wanted_by("resnet14"));
  EXPECT_THAT(match.unexpected, IsEmpty());
  EXPECT_THAT(match.note, AllOf(HasSubstr("4 entries"), HasSubstr("n_averaged, criterion.weight, module.mean, ...")));
  file.ours = true;  // in a file of ours every array counts
  EXPECT_EQ(match_arrays(file, wanted_by("resnet14")).unexpected.size(), 4u);
}

TEST(WeightNames, PartsOfAnotherNetworkAreNotPassedOver) {
  const auto unexpected = [](const std::string& name, const std::vector<std::int64_t>& shape, const char* prefix = "") {
    WeightFile file = file_of("resnet14", by({{"^", prefix}}));
    add(file, prefix + name, shape);
    return match_arrays(file, wanted_by("resnet14")).unexpected;
  };
  EXPECT_THAT(unexpected("layer1.2.conv1.weight", {16, 16, 3, 3}), ElementsAre("layer1.2.conv1.weight"));
  EXPECT_THAT(unexpected("layer4.0.conv1.weight", {128, 64, 3, 3}, "module."),
              ElementsAre("module.layer4.0.conv1.weight"));
  EXPECT_THAT(unexpected("layer1.0.shortcut.0.weight", {16, 16, 1, 1}), ElementsAre("layer1.0.shortcut.0.weight"));
  EXPECT_THAT(unexpected("layer1.0.se.fc1.weight", {4, 16}), ElementsAre("layer1.0.se.fc1.weight"));
  EXPECT_THAT(unexpected("layer1.0.conv1.bias", {16}), ElementsAre("layer1.0.conv1.bias"));
  EXPECT_THAT(unexpected("fc.0.weight", {64, 64}), ElementsAre("fc.0.weight"));
}

TEST(WeightNames, DoubtIsRefused) {
  const auto refusal = [](WeightFile file) { return error_of([&] { match_arrays(file, wanted_by("resnet14")); }); };
  WeightFile file = file_of("resnet14");
  add(file, "layer2.0.shortcut.0.weight", {32, 16, 1, 1});  // beside downsample
  EXPECT_THAT(refusal(file), AllOf(HasSubstr("\"layer2.0.downsample.0.weight\""),
                                   HasSubstr("\"layer2.0.shortcut.0.weight\""), HasSubstr("are both")));
  file = file_of("resnet14", by({{"^", "model."}}));
  for (const WantedArray& wanted : wanted_by("resnet14")) add(file, "net." + wanted.name, wanted.shape);
  EXPECT_THAT(refusal(file), AllOf(HasSubstr("model.conv1.weight"), HasSubstr("net.conv1.weight")));
  file = file_of("resnet14", by({{"^fc", "linear"}}));
  for (NamedArray& array : file.arrays) {
    if (array.name == "linear.weight") array.shape = {10, 32};
  }
  EXPECT_EQ(refusal(file), "mem: \"linear.weight\", read as \"fc.weight\", has shape [10, 32], expected [3, 64]");
}

TEST(WeightNames, WhatIsMissingIsSaidWithTheNearest) {
  const std::vector<WantedArray> wanted = wanted_by("resnet14");
  const WeightFile file = file_of("resnet14", by({{R"(layer2\.0\.downsample)", "layer2.0.proj"}}));
  const std::string text = misfit_text(file, wanted, match_arrays(file, wanted));
  EXPECT_THAT(text, AllOf(HasSubstr("missing (layer2.0.downsample.0.weight"), HasSubstr("unexpected"),
                          HasSubstr("nearest to layer2.0.downsample.0.weight is \"layer2.0.proj.0.weight\"")));
}

TEST(WeightNames, OfTwoHalvesTheStudentsIsTaken) {
  for (const std::string front : {"module.", "", "model.module."}) {
    WeightFile file = file_of("resnet14", by({{"^", front + "student."}}));
    for (const WantedArray& wanted : wanted_by("resnet20")) add(file, front + "teacher." + wanted.name, wanted.shape);
    const ArrayMatch match = match_arrays(file, wanted_by("resnet14"));
    EXPECT_THAT(match.missing, IsEmpty());
    EXPECT_THAT(match.unexpected, IsEmpty());
    EXPECT_EQ(match.found.at("fc.weight")->name, front + "student.fc.weight");
    EXPECT_THAT(match.note, HasSubstr("the student's is taken"));
  }
}

TEST(WeightNames, CountersMayBeMissingOrOfAnyShape) {
  WeightFile file = file_of("resnet14");
  for (NamedArray& array : file.arrays) {
    if (array.name == "bn1.num_batches_tracked") array.shape = {1};
  }
  std::erase_if(file.arrays, [](const NamedArray& a) { return a.name == "layer1.0.bn1.num_batches_tracked"; });
  const ArrayMatch match = match_arrays(file, wanted_by("resnet14"));
  EXPECT_THAT(match.missing, IsEmpty());
  EXPECT_THAT(match.unexpected, IsEmpty());
}

TEST(WeightNames, AnUnreadableTypeMattersOnlyWhereItIsNeeded) {
  WeightFile file = file_of("resnet14");
  file.unread = {{"mask", "of type BOOL"}};
  EXPECT_THAT(match_arrays(file, wanted_by("resnet14")).note, HasSubstr("mask"));
  std::erase_if(file.arrays, [](const NamedArray& a) { return a.name == "fc.bias"; });
  file.unread.push_back({"fc.bias", "of type F8_E4M3"});
  EXPECT_EQ(error_of([&] { match_arrays(file, wanted_by("resnet14")); }),
            "mem: \"fc.bias\" is of type F8_E4M3, expected F32, F16, BF16 or F64");
}

TEST(WeightNames, AreNotLookedAtForever) {
  const auto never = [](const std::string&) { return false; };
  EXPECT_EQ(our_name(std::string(5'000'000, '0'), never), "");
  std::string deep;
  while (deep.size() < 4'000'000) deep += "module.";
  EXPECT_EQ(our_name(deep, never), "");
  for (const char* odd : {"", ".", "..", "module.", "module..", "1.", "^conv1", "#"})
    EXPECT_EQ(our_name(odd, never), "");
}

}  // namespace
}  // namespace retort
