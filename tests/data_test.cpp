#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "data/catalog.h"
#include "data/dataset.h"
#include "data/shapes.h"
#include "data/split.h"
#include "kernels/error.h"
#include "kernels/philox.h"
#include "tests/support/files.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

// A folder that is removed with its content.
struct TemporaryFolder {
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "retort_data_XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "no temporary folder");
    path = name;
  }
  ~TemporaryFolder() { fs::remove_all(path); }
  fs::path path;
};

void write_file(const fs::path& path, const std::vector<std::uint8_t>& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

// CIFAR-10 files with known content: pixel byte p of record r of file f is (7 r + p + 31 f) mod 251, label r mod 10.
void write_cifar10(const fs::path& root) {
  std::uint32_t f = 0;
  for (const SetFile& file : known_set("cifar10").files) {
    std::vector<std::uint8_t> bytes;
    bytes.reserve(30730000);
    for (std::uint32_t r = 0; r < 10000; ++r) {
      bytes.push_back(static_cast<std::uint8_t>(r % 10));
      for (std::uint32_t p = 0; p < 3072; ++p) bytes.push_back(static_cast<std::uint8_t>((7 * r + p + 31 * f) % 251));
    }
    write_file(root / "cifar-10-batches-bin" / file.name, bytes);
    ++f;
  }
}

TEST(Cifar, ReadsPlanarRecordsOfAllFilesInOrder) {
  const TemporaryFolder folder;
  write_cifar10(folder.path);
  const Dataset set = load_dataset("cifar10", folder.path.string());
  ASSERT_EQ(set.train.count, 50000);
  ASSERT_EQ(set.test.count, 10000);
  EXPECT_EQ(set.class_names[9], "truck");
  for (const std::int64_t i : {0L, 1L, 127L, 128L, 9999L, 10000L, 31234L, 49999L}) {
    const std::uint32_t f = static_cast<std::uint32_t>(i / 10000), r = static_cast<std::uint32_t>(i % 10000);
    EXPECT_EQ(set.train.labels[static_cast<std::size_t>(i)], r % 10);
    for (std::uint32_t y = 0; y < 32; ++y) {
      for (std::uint32_t x = 0; x < 32; ++x) {
        for (std::uint32_t c = 0; c < 3; ++c) {
          const std::uint32_t p = c * 1024 + y * 32 + x;
          ASSERT_EQ(set.train.image(i)[(y * 32 + x) * 3 + c], (7 * r + p + 31 * f) % 251) << i << " " << y << " " << x;
        }
      }
    }
  }
  EXPECT_EQ(set.test.image(0)[0], 31 * 5);

  const Dataset part = load_dataset("cifar10", folder.path.string(), {"data_batch_3.bin", "data_batch_1.bin"});
  ASSERT_EQ(part.train.count, 20000);
  EXPECT_TRUE(std::equal(part.train.image(0), part.train.image(1), set.train.image(20000)));
  EXPECT_TRUE(std::equal(part.train.image(10000), part.train.image(10001), set.train.image(0)));
}

TEST(Cifar, ErrorsNameTheFileAndWhatToDo) {
  const TemporaryFolder folder;
  const std::string root = folder.path.string();
  const auto load = [&](const std::string& name, const std::vector<std::string>& files = {}) {
    return error_of([&] { load_dataset(name, root, files); });
  };
  EXPECT_THAT(load("cifar10"), AllOf(HasSubstr(root + "/cifar-10-batches-bin"), HasSubstr("./dataset cifar10")));
  EXPECT_THAT(load("cifer100"), HasSubstr("did you mean \"cifar100\""));

  write_cifar10(folder.path);
  const fs::path sets = folder.path / "cifar-10-batches-bin";
  EXPECT_THAT(load("cifar10", {"data_batch_6.bin"}),
              AllOf(HasSubstr("data_batch_6.bin"), HasSubstr("data_batch_5.bin")));
  EXPECT_THAT(load("cifar10", {"test_batch.bin"}), HasSubstr("test_batch.bin"));

  fs::remove(sets / "data_batch_4.bin");
  EXPECT_THAT(load("cifar10"), AllOf(HasSubstr("data_batch_4.bin"), HasSubstr("train_files")));
  EXPECT_NO_THROW(load_dataset("cifar10", root, {"data_batch_1.bin"}));

  {  // record 1234's label
    std::fstream file(sets / "data_batch_1.bin", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1234 * 3073);
    file.put(10);
  }
  EXPECT_THAT(load("cifar10", {"data_batch_1.bin"}), AllOf(HasSubstr("data_batch_1.bin"), HasSubstr("record 1234"),
                                                           HasSubstr("label 10"), HasSubstr("0 .. 9")));

  fs::resize_file(sets / "data_batch_2.bin", 30729999);
  EXPECT_THAT(load("cifar10", {"data_batch_2.bin"}), AllOf(HasSubstr("data_batch_2.bin"), HasSubstr("30729999"),
                                                           HasSubstr("30730000"), HasSubstr("truncated")));
  write_file(sets / "batches.meta.txt", {'c', 'a', 't', '\n'});
  EXPECT_THAT(load("cifar10", {"data_batch_3.bin"}), AllOf(HasSubstr("batches.meta.txt"), HasSubstr("1 class names")));
}

TEST(Cifar, RealCifar100) {
  if (!fs::exists(dataset_root() / "cifar-100-binary")) GTEST_SKIP() << "no cifar-100-binary in " << dataset_root();
  const Dataset set = load_dataset("cifar100");
  EXPECT_EQ(set.train.count, 50000);
  EXPECT_EQ(set.test.count, 10000);
  ASSERT_EQ(set.class_names.size(), 100u);
  EXPECT_EQ(set.class_names[0], "apple");
  EXPECT_EQ(set.class_names, known_set("cifar100").class_names);
  std::map<std::int32_t, int> train, test;
  for (const std::int32_t label : set.train.labels) ++train[label];
  for (const std::int32_t label : set.test.labels) ++test[label];
  for (int c = 0; c < 100; ++c) {
    EXPECT_EQ(train[c], 500);
    EXPECT_EQ(test[c], 100);
  }
  // Published channel means of the training images.
  double sum[3] = {};
  for (std::size_t i = 0; i < set.train.images.size(); ++i) sum[i % 3] += set.train.images[i];
  const double mean[3] = {0.5071, 0.4865, 0.4409};
  for (int c = 0; c < 3; ++c) EXPECT_NEAR(sum[c] / (50000.0 * 1024 * 255), mean[c], 1e-4);
}

TEST(Cifar, RealCifar10) {
  if (!fs::exists(dataset_root() / "cifar-10-batches-bin")) {
    GTEST_SKIP() << "no cifar-10-batches-bin in " << dataset_root();
  }
  const Dataset set = load_dataset("cifar10", "", {"data_batch_1.bin"});
  EXPECT_EQ(set.train.count, 10000);
  EXPECT_EQ(set.test.count, 10000);
  EXPECT_EQ(set.class_names, known_set("cifar10").class_names);
  std::vector<int> counts(10);
  for (const std::int32_t label : set.test.labels) ++counts[static_cast<std::size_t>(label)];
  EXPECT_EQ(counts, std::vector<int>(10, 1000));
}

TEST(Shapes, IsDeterministicBalancedAndDistinct) {
  const Dataset set = make_shapes(400, 100, 7);
  EXPECT_EQ(set.class_count(), 20);
  EXPECT_EQ(set.train.images, make_shapes(400, 20, 7).train.images);
  EXPECT_NE(set.train.images, make_shapes(400, 20, 8).train.images);
  const Dataset longer = make_shapes(500, 100, 7);
  EXPECT_TRUE(std::equal(set.train.images.begin(), set.train.images.end(), longer.train.images.begin()));
  std::vector<int> counts(20);
  for (const std::int32_t label : set.train.labels) ++counts[static_cast<std::size_t>(label)];
  EXPECT_EQ(counts, std::vector<int>(20, 20));
  std::set<std::string> images;
  for (const ImageSet* part : {&set.train, &set.test}) {
    for (std::int64_t i = 0; i < part->count; ++i) images.emplace(part->image(i), part->image(i + 1));
  }
  EXPECT_EQ(images.size(), 500u) << "two images are equal";
}

// Colour says nothing about the class: no class's mean colour stands out from the others by more than chance.
TEST(Shapes, MeanColourIsIndependentOfTheClass) {
  const Dataset set = make_shapes(4000, 20, 1);
  std::vector<double> mean(20 * 3);
  for (std::int64_t i = 0; i < set.train.count; ++i) {
    for (int p = 0; p < 3072; ++p) {
      mean[static_cast<std::size_t>(set.train.labels[static_cast<std::size_t>(i)] * 3 + p % 3)] +=
          set.train.image(i)[p] / (200.0 * 1024 * 255);
    }
  }
  for (std::size_t channel = 0; channel < 3; ++channel) {
    double all = 0;
    for (std::size_t c = 0; c < 20; ++c) all += mean[c * 3 + channel] / 20;
    for (std::size_t c = 0; c < 20; ++c) EXPECT_NEAR(mean[c * 3 + channel], all, 0.05) << "class " << c;
  }
}

std::vector<std::int32_t> some_labels() {
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 1000; ++i) labels.push_back(i % 7 == 0 ? 3 : i % 3);  // unequal classes
  return labels;
}

TEST(Split, PartsAreDisjointCompleteAndStratified) {
  const auto labels = some_labels();
  for (const double validation : {0.0, 0.1, 0.25, 1.0, 100.0, 333.0, 999.0}) {
    const Split split = split_train_validation(labels, validation, 42);
    const auto expected = static_cast<std::size_t>(validation < 1 ? validation * 1000 : validation);
    EXPECT_EQ(split.validation.size(), expected);
    EXPECT_EQ(split.train.size(), 1000 - expected);
    EXPECT_TRUE(std::is_sorted(split.train.begin(), split.train.end()));
    std::set<std::int32_t> all(split.train.begin(), split.train.end());
    all.insert(split.validation.begin(), split.validation.end());
    EXPECT_EQ(all.size(), 1000u);
    for (int c = 0; c < 4; ++c) {
      const auto of_class = [&](std::int32_t i) { return labels[static_cast<std::size_t>(i)] == c; };
      const auto total = std::count(labels.begin(), labels.end(), c);
      const auto taken = std::count_if(split.validation.begin(), split.validation.end(), of_class);
      EXPECT_NEAR(static_cast<double>(taken), static_cast<double>(total) * static_cast<double>(expected) / 1000, 1.0);
    }
  }
  EXPECT_NE(split_train_validation(labels, 100, 1).validation, split_train_validation(labels, 100, 2).validation);
  EXPECT_EQ(split_train_validation(labels, 100, 1).validation, split_train_validation(labels, 100, 1).validation);
}

TEST(Split, ImpossibleRequestsAreErrors) {
  const auto labels = some_labels();
  EXPECT_THAT(error_of([&] { split_train_validation(labels, 1000, 1); }), HasSubstr("1000 of 1000"));
  EXPECT_THAT(error_of([&] { split_train_validation(labels, -0.1, 1); }), HasSubstr("-0.1"));
  EXPECT_THAT(error_of([&] { split_train_validation(labels, 10.5, 1); }), HasSubstr("10.5"));
  EXPECT_THAT(error_of([&] { split_train_validation(labels, std::nan(""), 1); }), HasSubstr("nan"));
  EXPECT_THAT(error_of([&] { take_fraction({0, 1}, labels, 0, 1); }), HasSubstr("fraction is 0"));
  EXPECT_THAT(error_of([&] { take_fraction({0, 1000}, labels, 0.5, 1); }), HasSubstr("index 1000"));
}

TEST(Split, FractionsAreStratifiedAndNested) {
  const auto labels = some_labels();
  const auto train = split_train_validation(labels, 0.2, 3).train;
  EXPECT_EQ(take_fraction(train, labels, 1.0, 5), train);
  std::vector<std::int32_t> smaller;
  for (const double fraction : {0.0001, 0.03, 0.1, 0.5, 0.9}) {
    const auto taken = take_fraction(train, labels, fraction, 5);
    EXPECT_TRUE(std::includes(train.begin(), train.end(), taken.begin(), taken.end()));
    EXPECT_TRUE(std::includes(taken.begin(), taken.end(), smaller.begin(), smaller.end()));
    for (int c = 0; c < 4; ++c) {
      const auto of_class = [&](std::int32_t i) { return labels[static_cast<std::size_t>(i)] == c; };
      const auto total = static_cast<double>(std::count_if(train.begin(), train.end(), of_class));
      const auto n = static_cast<double>(std::count_if(taken.begin(), taken.end(), of_class));
      EXPECT_GE(n, 1);
      EXPECT_NEAR(n, std::max(1.0, fraction * total), 0.5);
    }
    smaller = taken;
  }
}

TEST(EpochOrder, IsAPermutationDecidedBySeedAndEpoch) {
  std::vector<std::int32_t> indices(1000);
  std::iota(indices.begin(), indices.end(), 500);
  EXPECT_EQ(epoch_order(indices, 1, 0, false), indices);
  const auto first = epoch_order(indices, 1, 0, true);
  EXPECT_NE(first, indices);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), indices.begin()));
  EXPECT_EQ(first, epoch_order(indices, 1, 0, true));
  EXPECT_NE(first, epoch_order(indices, 1, 1, true));
  EXPECT_NE(first, epoch_order(indices, 2, 0, true));
}

// Fixed for all platforms: runs recorded by one version resume in the next.
TEST(EpochOrder, IsTheOrderOfThePublishedGenerator) {
  // Philox 4x32-10 known answers (Random123, kat_vectors).
  const Philox4 zero = philox(0, {{0, 0, 0, 0}});
  EXPECT_EQ(zero.v[0], 0x6627e8d5u);
  EXPECT_EQ(zero.v[3], 0x9b00dbd8u);
  EXPECT_EQ(epoch_order({0, 1, 2, 3, 4, 5, 6, 7}, 42, 3, true), (std::vector<std::int32_t>{0, 4, 5, 1, 2, 3, 7, 6}));
}

// Each position is equally likely for each element.
TEST(EpochOrder, IsUniform) {
  const std::vector<std::int32_t> indices = {0, 1, 2, 3, 4};
  std::vector<int> counts(25);
  constexpr int kEpochs = 20000;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const auto order = epoch_order(indices, 9, epoch, true);
    for (std::size_t i = 0; i < 5; ++i) ++counts[i * 5 + static_cast<std::size_t>(order[i])];
  }
  for (const int count : counts) EXPECT_NEAR(count, kEpochs / 5, 5 * std::sqrt(kEpochs * 0.16));
}

}  // namespace
}  // namespace retort
