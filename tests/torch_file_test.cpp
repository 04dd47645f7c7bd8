// PyTorch's files, written here byte by byte: what they hold, and that nothing in them is ever run.
#include "engine/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/torch_writer.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::bytes_of;
using test::Pickle;
using test::read_file;
using test::Storages;
using test::TemporaryFolder;
using test::write_file;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

template <typename T>
std::vector<T> values_of(const WeightFile& file, const std::string& name) {
  const NamedArray* const array = file.find(name);
  if (array == nullptr) return {};
  std::vector<T> values(array->bytes.size() / sizeof(T));
  std::memcpy(values.data(), array->bytes.data(), array->bytes.size());
  return values;
}

const Storages kTwo = {{"0", bytes_of<float>({0, 1, 2, 3, 4, 5})}, {"1", bytes_of<float>({7, 8, 9})}};

// A transposed 3 x 2 view of storage 0 and the last two elements of storage 1.
std::string two_tensors(bool old = false, const std::string& prefix = "") {
  return Pickle()
      .old(old)
      .name("collections", "OrderedDict")
      .code(")R(")
      .tensor(prefix + "a.weight", "FloatStorage", "0", 6, 0, {3, 2}, {1, 3})
      .tensor(prefix + "a.bias", "FloatStorage", "1", 3, 1, {2}, {1})
      .code("u")
      .done();
}

class TorchFile : public testing::Test {
 protected:
  std::string path() const { return folder_ / "weights.pth"; }
  WeightFile read() const { return read_weight_file(path()); }
  // What the file is refused with; empty where it is read.
  std::string refusal() const {
    try {
      read();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  void write(const std::string& bytes) const { write_file(path(), bytes); }
  std::string written() const { return read_file(path()); }

  void write_entries(const Storages& entries, const char* compression = "store") const {
    test::write_entries(path(), entries, compression);
  }
  void write_new(const std::string& pickle, const Storages& storages) const {
    test::write_new(path(), pickle, storages);
  }
  void write_old(const std::string& pickle, const Storages& storages, std::size_t width) const {
    test::write_old(path(), pickle, storages, width);
  }

  // Writes the file with kTwo in one of the formats and gives its bytes.
  std::string two_tensors_file(bool old) const {
    if (old) {
      write_old(two_tensors(true), kTwo, 4);
    } else {
      write_new(two_tensors(), kTwo);
    }
    return written();
  }

  TemporaryFolder folder_;
};

void expect_two_tensors(const WeightFile& file) {
  ASSERT_EQ(file.arrays.size(), 2u);
  EXPECT_THAT(file.arrays[0].shape, ElementsAre(3, 2));
  EXPECT_THAT(values_of<float>(file, "a.weight"), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(values_of<float>(file, "a.bias"), ElementsAre(8, 9));
}

TEST_F(TorchFile, BothFormatsAreRead) {
  for (const bool old : {false, true}) {
    two_tensors_file(old);
    expect_two_tensors(read());
  }
}

// They are translated where a network's arrays are looked for, in files of every format (tests/weight_names_test.cpp).
TEST_F(TorchFile, NamesStayAsTheyAre) {
  write_new(two_tensors(false, "module._orig_mod.model."), kTwo);
  const WeightFile file = read();
  ASSERT_EQ(file.arrays.size(), 2u);
  EXPECT_EQ(file.arrays[0].name, "module._orig_mod.model.a.weight");
}

TEST_F(TorchFile, TheStateDictMayLieInADictionary) {
  Pickle inner;
  inner.code("}(").text("epoch").number(7).text("best").code(std::string("G\x3f\xe0\0\0\0\0\0\0", 9));
  inner.tensor("best_acc1", "FloatStorage", "1", 3, 0, {}, {});
  inner.text("flags").code("]\x88\x61").text("state_dict").code("}(");
  inner.tensor("a.weight", "FloatStorage", "0", 6, 0, {3, 2}, {1, 3});
  inner.tensor("a.bias", "FloatStorage", "1", 3, 1, {2}, {1}).text("version").code("N").code("uu");
  write_new(inner.done(), kTwo);
  expect_two_tensors(read());
}

TEST_F(TorchFile, EveryTypeIsTakenOrWidened) {
  Pickle p;
  p.code("}(");
  p.tensor("half", "HalfStorage", "0", 2, 0, {2}, {1}).tensor("bf16", "BFloat16Storage", "1", 1, 0, {1}, {1});
  p.tensor("long", "LongStorage", "2", 1, 0, {}, {}).tensor("double", "DoubleStorage", "3", 1, 0, {1}, {1});
  p.tensor("short", "ShortStorage", "4", 2, 0, {2}, {1}).tensor("char", "CharStorage", "5", 1, 0, {1}, {1});
  p.tensor("bool", "BoolStorage", "6", 2, 0, {2}, {1}).tensor("empty", "FloatStorage", "7", 0, 0, {0}, {1});
  write_new(p.code("u").done(), {{"0", bytes_of<std::uint16_t>({0x3c00, 0xc100})},
                                 {"1", bytes_of<std::uint16_t>({0x3f80})},
                                 {"2", bytes_of<std::int64_t>({1LL << 40})},
                                 {"3", bytes_of<double>({0.1})},
                                 {"4", bytes_of<std::int16_t>({-3, 300})},
                                 {"5", bytes_of<std::int8_t>({-4})},
                                 {"6", bytes_of<std::uint8_t>({1, 0})},
                                 {"7", ""}});
  const WeightFile file = read();
  EXPECT_THAT(values_of<float>(file, "half"), ElementsAre(1.0f, -2.5f));
  EXPECT_EQ(file.find("bf16")->dtype, FileType::bf16);
  EXPECT_THAT(values_of<std::int64_t>(file, "long"), ElementsAre(1LL << 40));
  EXPECT_TRUE(file.find("long")->shape.empty());
  EXPECT_THAT(values_of<double>(file, "double"), ElementsAre(0.1));
  EXPECT_THAT(values_of<std::int32_t>(file, "short"), ElementsAre(-3, 300));
  EXPECT_THAT(values_of<std::int32_t>(file, "char"), ElementsAre(-4));
  EXPECT_THAT(values_of<std::uint8_t>(file, "bool"), ElementsAre(1, 0));
  EXPECT_EQ(file.find("empty")->numel(), 0);
}

TEST_F(TorchFile, NothingIsEverCalled) {
  const std::string mark = folder_ / "called";
  write_new(Pickle().name("os", "system").text("touch " + mark).code("\x85R").done(), {});
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("weights.pth"), HasSubstr("byte 2"), HasSubstr("\"os.system\""), HasSubstr("refused")));
  write_new(Pickle().text("builtins").text("eval").code("\x93").text("1").code("\x85R").done(), {});
  EXPECT_THAT(refusal(), HasSubstr("\"builtins.eval\""));
  write_old(Pickle().name("posix", "system").text("touch " + mark).code("\x85R").done(), {}, 4);
  EXPECT_THAT(refusal(), HasSubstr("\"posix.system\""));
  EXPECT_FALSE(fs::exists(mark));
}

TEST_F(TorchFile, TensorsThatDoNotFitTheirStorageAreRefused) {
  const auto with = [&](std::int32_t offset, const std::vector<std::int32_t>& shape,
                        const std::vector<std::int32_t>& strides, const std::string& storage = "0") {
    write_new(Pickle().code("}(").tensor("w", "FloatStorage", storage, 6, offset, shape, strides).code("u").done(),
              kTwo);
    return refusal();
  };
  EXPECT_EQ(with(0, {6}, {1}), "");
  EXPECT_THAT(with(1, {6}, {1}), AllOf(HasSubstr("\"w\""), HasSubstr("beyond its storage of 6")));
  EXPECT_THAT(with(0, {2, 3}, {4, 1}), HasSubstr("beyond"));
  EXPECT_THAT(with(0, {1 << 30, 1 << 30, 1 << 30}, {0, 0, 0}), HasSubstr("\"w\""));
  EXPECT_EQ(with(0, {1000000}, {0}), "") << "what expand() made";
  EXPECT_THAT(with(0, {1 << 30}, {0}), HasSubstr("repeats"));
  EXPECT_THAT(with(0, {6}, {1, 1}), HasSubstr("strides"));
  EXPECT_THAT(with(-1, {2}, {1}), HasSubstr("offset"));
  EXPECT_THAT(with(0, {-2}, {1}), HasSubstr("shape"));
  EXPECT_THAT(with(0, {2}, {1}, "9"), HasSubstr("\"9\" is not in the file"));
}

TEST_F(TorchFile, WhatIsNoStateDictIsNamed) {
  write_new(Pickle().code("}(").text("model").number(1).text("args").code("Nu").done(), {});
  EXPECT_THAT(refusal(), AllOf(HasSubstr("no state dict"), HasSubstr("\"args\"")));
  write_new(Pickle().number(3).done(), {});
  EXPECT_THAT(refusal(), HasSubstr("torch.save"));
  write_entries({{"data.pkl", two_tensors()}, {"constants.pkl", ""}});
  EXPECT_THAT(refusal(), HasSubstr("TorchScript"));
  write_entries({{"notes.txt", "hello"}});
  EXPECT_THAT(refusal(), HasSubstr("data.pkl"));
  write_entries({{"data.pkl", two_tensors()}, {"byteorder", "big"}});
  EXPECT_THAT(refusal(), HasSubstr("byte order"));
  write_entries({{"data.pkl", std::string(1 << 20, 'N')}}, "deflate");
  EXPECT_THAT(refusal(), HasSubstr("compressed"));
  write_new(Pickle()
                .code("}(")
                .tensor("w", "FloatStorage", "0", 6, 0, {6}, {1})
                .tensor("w", "FloatStorage", "0", 6, 0, {6}, {1})
                .code("u")
                .done(),
            kTwo);
  EXPECT_THAT(refusal(), HasSubstr("two tensors named \"w\""));
}

// A pickle can nest as deep as it is long, and hold itself.
TEST_F(TorchFile, DeepAndCyclicStructuresAreNoTrouble) {
  write_new(Pickle().code(std::string(200000, ']') + std::string(199999, 'a')).done(), {});
  EXPECT_THAT(refusal(), HasSubstr("no dictionary"));
  write_new(Pickle()
                .code("}q")
                .code(std::string(1, '\0'))
                .text("model")
                .code("h")
                .code(std::string(1, '\0'))
                .code("s")
                .done(),
            {});
  EXPECT_THAT(refusal(), HasSubstr("no state dict"));
}

TEST_F(TorchFile, EveryTruncationIsRefused) {
  for (const bool old : {false, true}) {
    const std::string whole = two_tensors_file(old);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      write(whole.substr(0, length));
      EXPECT_NE(refusal(), "") << length << " of " << whole.size() << " bytes";
    }
  }
}

// Not every flipped bit can be seen (a name may be spelt otherwise), but none may do harm; in a zip archive those of
// the weights are seen.
TEST_F(TorchFile, NoFlippedBitDoesHarm) {
  for (const bool old : {false, true}) {
    const std::string whole = two_tensors_file(old);
    const std::size_t weights = whole.find(kTwo[0].second);
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const int bit : {0, 3, 7}) {
        std::string flipped = whole;
        flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
        write(flipped);
        const std::string text = refusal();
        EXPECT_EQ(text.find('\n'), std::string::npos) << text;
        const bool in_weights = !old && at >= weights && at < weights + kTwo[0].second.size();
        EXPECT_FALSE(in_weights && text.empty()) << at;
      }
    }
  }
}

TEST_F(TorchFile, ThePretrainedNetworksAreThoseOfTheirSafetensors) {
  const char* const root = std::getenv("RETORT_DATASETS");
  const fs::path folder = fs::path(root ? root : "datasets") / "pretrained_resnet_cifar10";
  if (!fs::exists(folder)) GTEST_SKIP() << folder << " is not there";
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".th") continue;
    const WeightFile ours = read_weight_file(entry.path().string());
    const WeightFile theirs = read_safetensors(fs::path(entry.path()).replace_extension(".safetensors").string());
    ASSERT_EQ(ours.arrays.size(), theirs.arrays.size());
    for (const NamedArray& array : theirs.arrays) {
      const NamedArray* const found = ours.find("module." + array.name);
      ASSERT_NE(found, nullptr) << array.name;
      EXPECT_EQ(found->shape, array.shape) << array.name;
      EXPECT_TRUE(found->bytes == array.bytes) << array.name;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 4);
}

}  // namespace
}  // namespace retort
