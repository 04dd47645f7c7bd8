#include "data/dataset.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "data/catalog.h"
#include "data/shapes.h"
#include "engine/project_folder.h"
#include "kernels/error.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct File {
  explicit File(const fs::path& path) : descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor < 0) fail("{}: cannot be opened: {}", path.string(), std::strerror(errno));
  }
  ~File() { ::close(descriptor); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor;
};

bool read_whole(int descriptor, std::uint8_t* to, std::int64_t bytes, std::int64_t offset) {
  while (bytes > 0) {
    const ssize_t n = ::pread(descriptor, to, static_cast<std::size_t>(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n;
    offset += n;
    bytes -= n;
  }
  return true;
}

// Red, green and blue planes of `pixels` bytes each to interleaved RGB.
void interleave(const std::uint8_t* planes, int pixels, std::uint8_t* rgb) {
  const std::uint8_t* r = planes;
  const std::uint8_t* g = planes + pixels;
  const std::uint8_t* b = planes + 2 * pixels;
  for (int i = 0; i < pixels; ++i) {
    rgb[3 * i] = r[i];
    rgb[3 * i + 1] = g[i];
    rgb[3 * i + 2] = b[i];
  }
}

// Reads all records of `file` into out, from record `first` on.
void read_records(const fs::path& path, const KnownSet& set, const SetFile& file, ImageSet& out, std::int64_t first) {
  const File handle(path);
  struct stat status {};
  if (::fstat(handle.descriptor, &status) != 0) fail("{}: {}", path.string(), std::strerror(errno));
  const std::int64_t expected = file.records * set.record_bytes();
  check(status.st_size == expected,
        "{}: {} bytes, expected {} ({} records of {}): the file is {}; fetch it again with ./dataset {}", path.string(),
        status.st_size, expected, file.records, set.record_bytes(), status.st_size < expected ? "truncated" : "altered",
        set.name);

  constexpr std::int64_t kChunk = 128;  // records a read: 400 kB, so that planes are still in cache when interleaved
  const int pixels = set.height * set.width;
  std::atomic<bool> readable = true;
  std::atomic<std::int64_t> bad_record = file.records;
#pragma omp parallel
  {
    std::vector<std::uint8_t> chunk(static_cast<std::size_t>(kChunk * set.record_bytes()));
#pragma omp for schedule(static)
    for (std::int64_t begin = 0; begin < file.records; begin += kChunk) {
      const std::int64_t n = std::min(kChunk, file.records - begin);
      if (!read_whole(handle.descriptor, chunk.data(), n * set.record_bytes(), begin * set.record_bytes())) {
        readable = false;
        continue;
      }
      for (std::int64_t i = 0; i < n; ++i) {
        const std::uint8_t* record = chunk.data() + i * set.record_bytes();
        const int label = record[set.label_bytes - 1];
        if (label >= set.class_count()) {
          std::int64_t seen = bad_record;
          while (begin + i < seen && !bad_record.compare_exchange_weak(seen, begin + i)) {
          }
        }
        const auto at = static_cast<std::size_t>(first + begin + i);
        out.labels[at] = label;
        interleave(record + set.label_bytes, pixels, out.images.data() + at * static_cast<std::size_t>(3 * pixels));
      }
    }
  }
  check(readable, "{}: reading failed before the end of the file", path.string());
  if (bad_record < file.records) {
    fail("{}: record {} has label {}, expected 0 .. {}: the file is altered; fetch it again with ./dataset {}",
         path.string(), bad_record.load(), out.labels[static_cast<std::size_t>(first + bad_record)],
         set.class_count() - 1, set.name);
  }
}

ImageSet read_files(const fs::path& folder, const KnownSet& set, const std::vector<const SetFile*>& files) {
  ImageSet out;
  out.height = set.height;
  out.width = set.width;
  for (const SetFile* file : files) out.count += file->records;
  out.images.resize(static_cast<std::size_t>(out.count) * static_cast<std::size_t>(3 * set.height * set.width));
  out.labels.resize(static_cast<std::size_t>(out.count));
  std::int64_t first = 0;
  for (const SetFile* file : files) {
    read_records(folder / file->name, set, *file, out, first);
    first += file->records;
  }
  return out;
}

std::vector<std::string> read_class_names(const fs::path& folder, const KnownSet& set) {
  const fs::path path = folder / set.names_file;
  std::ifstream in(path);
  if (!in) return set.class_names;
  std::vector<std::string> names = class_names_in(in);
  check(names.size() == set.class_names.size(), "{}: {} class names, expected {}; fetch it again with ./dataset {}",
        path.string(), names.size(), set.class_names.size(), set.name);
  return names;
}

Dataset load_files(const KnownSet& set, const std::string& root, const std::vector<const SetFile*>& train) {
  std::vector<const SetFile*> test;
  for (const SetFile& file : set.files) {
    if (!file.train) test.push_back(&file);
  }

  const fs::path folder = dataset_root(root) / set.folder;
  std::error_code ignored;
  check(fs::is_directory(folder, ignored),
        "data set {}: no folder {}; fetch it with ./dataset {}, or point data.root or $RETORT_DATASETS at the folder "
        "that holds {}",
        set.name, folder.string(), set.name, set.folder);
  for (const auto* files : {&train, &std::as_const(test)}) {
    for (const SetFile* file : *files) {
      check(fs::exists(folder / file->name, ignored), "data set {}: no file {}; fetch the set with ./dataset {}{}",
            set.name, (folder / file->name).string(), set.name,
            file->train ? ", or name the files there are in data.train_files" : "");
    }
  }

  Dataset result;
  result.name = set.name;
  result.class_names = read_class_names(folder, set);
  result.train = read_files(folder, set, train);
  result.test = read_files(folder, set, test);
  return result;
}

}  // namespace

std::vector<const SetFile*> select_training_files(const KnownSet& set, const std::vector<std::string>& wanted) {
  std::vector<const SetFile*> all;
  std::vector<std::string> names;
  for (const SetFile& file : set.files) {
    if (!file.train) continue;
    all.push_back(&file);
    names.push_back(file.name);
  }
  if (wanted.empty()) return all;
  std::vector<const SetFile*> chosen;
  for (const std::string& name : wanted) {
    const auto it = std::find(names.begin(), names.end(), name);
    check(it != names.end(), "data set {}: train_files names \"{}\"; its training files are {}", set.name, name,
          fmt::join(names, ", "));
    const SetFile* file = all[static_cast<std::size_t>(it - names.begin())];
    check(std::find(chosen.begin(), chosen.end(), file) == chosen.end(), "data set {}: train_files names {} twice",
          set.name, name);
    chosen.push_back(file);
  }
  return chosen;
}

std::vector<std::string> class_names_in(std::istream& text) {
  constexpr const char* kSpace = " \t\r";
  std::vector<std::string> names;
  for (std::string line; std::getline(text, line);) {
    line.erase(line.find_last_not_of(kSpace) + 1);
    line.erase(0, line.find_first_not_of(kSpace));
    names.push_back(std::move(line));
  }
  while (!names.empty() && names.back().empty()) names.pop_back();
  return names;
}

fs::path dataset_root(const std::string& root) {
  if (!root.empty()) return root;
  const char* from_environment = std::getenv("RETORT_DATASETS");
  return from_environment != nullptr && *from_environment != '\0' ? from_environment : in_project("datasets");
}

Dataset load_dataset(const std::string& name, const std::string& root, const std::vector<std::string>& train_files) {
  const KnownSet& set = known_set(name);
  if (!set.built_in()) return load_files(set, root, select_training_files(set, train_files));
  check(train_files.empty(), "data set {}: train_files is given, but this set has no files", name);
  return make_shapes();
}

Dataset load_test_images(const std::string& name, const std::string& root) {
  const KnownSet& set = known_set(name);
  return set.built_in() ? make_shapes(0) : load_test_images(set, root);
}

Dataset load_test_images(const KnownSet& set, const std::string& root) {
  return load_files(set, root, {});
}

}  // namespace retort
