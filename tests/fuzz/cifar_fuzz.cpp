// The layout of CIFAR-10 in files of five images. The first byte says whether the rest stands for the names or for the
// images, and whether these are filled up with zeros to the size that they have to have.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "data/catalog.h"
#include "data/dataset.h"
#include "kernels/error.h"

namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("retort-cifar-fuzz-" + std::to_string(getpid()));
  ~Folder() { fs::remove_all(path); }
};

void write(const fs::path& path, const std::uint8_t* data, std::size_t size) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
}

// A whole set is 30 MB a run.
retort::KnownSet five_images() {
  retort::KnownSet set = retort::known_set("cifar10");
  for (retort::SetFile& file : set.files) file.records = 5;
  return set;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder root;
  static const retort::KnownSet set = five_images();
  const fs::path folder = root.path / set.folder, images = folder / set.files.back().name,
                 names = folder / set.names_file;
  if (size == 0) return 0;
  fs::create_directories(folder);
  const bool for_names = (data[0] & 1) != 0, whole = (data[0] & 2) != 0;
  write(names, data + 1, for_names ? size - 1 : 0);
  if (!for_names) fs::remove(names);
  write(images, data + 1, for_names ? 0 : size - 1);
  if (whole) fs::resize_file(images, static_cast<std::uintmax_t>(set.files.back().records * set.record_bytes()));
  try {
    const retort::Dataset dataset = retort::load_test_images(set, root.path.string());
    for (const std::int32_t label : dataset.test.labels) {
      if (label < 0 || label >= dataset.class_count()) std::abort();
    }
  } catch (const retort::Error&) {
  }
  return 0;
}
