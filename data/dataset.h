// Image classification sets in host memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

namespace retort {

struct KnownSet;  // data/catalog.h
struct SetFile;

struct ImageSet {
  std::vector<std::uint8_t> images;  // [count, height, width, 3], RGB
  std::vector<std::int32_t> labels;  // [count], each in 0 .. classes - 1
  std::int64_t count = 0;
  int height = 0;
  int width = 0;

  const std::uint8_t* image(std::int64_t index) const { return images.data() + index * height * width * 3; }
};

struct Dataset {
  std::string name;
  std::vector<std::string> class_names;
  ImageSet train;
  ImageSet test;

  int class_count() const { return static_cast<int>(class_names.size()); }
};

// `root` where it is given, else $RETORT_DATASETS, else "datasets" (engine/project_folder.h).
std::filesystem::path dataset_root(const std::string& root = "");

// Names, one a line: without the spaces around them and the empty lines behind the last one.
std::vector<std::string> class_names_in(std::istream& text);

// "cifar10" and "cifar100" in their original binary layout (Krizhevsky, 2009; fine labels), or "shapes", which the
// program makes itself. With `train_files`, only these files of the set are read as the training images, in this order.
// Throws Error where the set or a file is missing, has the wrong size or holds a label out of range. Checksums are not
// computed here: verify_dataset (data/verify.h) does that.
Dataset load_dataset(const std::string& name, const std::string& root = "",
                     const std::vector<std::string>& train_files = {});

// The same with no training images, whose files need not be there.
Dataset load_test_images(const std::string& name, const std::string& root = "");
Dataset load_test_images(const KnownSet& set, const std::string& root);  // of a set that lies in files

// Those of the set's training files that are named, or all where none is. Throws Error for others and repetitions.
std::vector<const SetFile*> select_training_files(const KnownSet& set, const std::vector<std::string>& wanted);

}  // namespace retort
