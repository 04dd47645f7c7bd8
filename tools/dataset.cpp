// Lists, fetches, verifies and draws data sets.
#include <algorithm>
#include <filesystem>
#include <numeric>
#include <sstream>

#include "data/augment_config.h"
#include "data/catalog.h"
#include "data/fetch.h"
#include "data/loader.h"
#include "data/sample_grid.h"
#include "data/split.h"
#include "data/verify.h"
#include "tools/program.h"

namespace {

using namespace retort;
namespace fs = std::filesystem;

struct Options {
  std::string name, root, url, samples;
  std::string augment = "flip,crop,color_jitter,rotation,resized_crop";
  bool verify = false;
  int count = 60;
  std::uint64_t seed = 1;
};

std::string state_of(const KnownSet& set, const fs::path& root) {
  if (set.built_in()) return "always there";
  const auto reports = inspect_files(set, root / set.folder, false);
  const auto count = [&](FileState state) {
    return std::count_if(reports.begin(), reports.end(), [&](const FileReport& r) { return r.state == state; });
  };
  for (const FileReport& report : reports) {
    if (report.state == FileState::damaged) return report.text;
  }
  const auto missing = count(FileState::missing);
  if (missing == std::ssize(reports)) return fmt::format("absent; ./dataset {} fetches it", set.name);
  if (missing > 0)
    return fmt::format("{} of {} files are there; ./dataset {} fetches the rest", reports.size() - missing,
                       reports.size(), set.name);
  return fmt::format("complete; ./dataset {} --verify checks every byte", set.name);
}

int list(const fs::path& root) {
  say("Data sets are looked for in {} (--root, else $RETORT_DATASETS, else datasets)\n\n",
      fs::absolute(root).lexically_normal().string());
  for (const KnownSet& set : known_sets()) {
    say("{:<10}{}\n", set.name, set.summary);
    if (!set.built_in()) say("{:<10}{}\n", "", (root / set.folder).string());
    say("{:<10}{}\n\n", "", state_of(set, root));
  }
  return 0;
}

int verify(const KnownSet& set, const fs::path& root) {
  if (set.built_in()) {
    say("{} is made by the program: nothing to verify\n", set.name);
    return 0;
  }
  int wrong = 0;
  for (const FileReport& report : inspect_files(set, root / set.folder, true)) {
    const bool good = report.state == FileState::good;
    say("{}\n",
        good ? fmt::format("{}: {}", (root / set.folder / report.file->name).string(), report.text) : report.text);
    wrong += good ? 0 : 1;
  }
  check(wrong == 0, "data set {}: {} of {} files are missing or damaged; delete the damaged ones and run ./dataset {}",
        set.name, wrong, set.files.size(), set.name);
  return 0;
}

std::vector<AugmentStepConfig> steps_of(const std::string& list) {
  std::vector<AugmentStepConfig> steps;
  std::istringstream in(list);
  for (std::string name; std::getline(in, name, ',');) {
    if (!name.empty() && name != "none") steps.push_back({name, {}});
  }
  return steps;
}

// `count` training images in random order, as many of each class as of any other, sorted by class.
std::vector<std::int32_t> pick_samples(const Dataset& set, int count, std::uint64_t seed) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(set.train.count));
  std::iota(all.begin(), all.end(), 0);
  const auto label = [&](std::int32_t i) { return set.train.labels[static_cast<std::size_t>(i)]; };
  const int per_class = (count + set.class_count() - 1) / set.class_count();
  std::vector<int> taken(static_cast<std::size_t>(set.class_count()));
  std::vector<std::int32_t> picked;
  for (const std::int32_t index : epoch_order(all, seed, 0, true)) {
    if (static_cast<int>(picked.size()) == count) break;
    if (taken[static_cast<std::size_t>(label(index))]++ < per_class) picked.push_back(index);
  }
  std::stable_sort(picked.begin(), picked.end(), [&](auto a, auto b) { return label(a) < label(b); });
  return picked;
}

int draw(const Options& options, const KnownSet& known) {
  std::vector<std::string> files;  // those that are there: a part of a set can be looked at too
  for (const FileReport& report : inspect_files(known, dataset_root(options.root) / known.folder, false)) {
    if (report.file->train && report.state == FileState::good) files.push_back(report.file->name);
  }
  const Dataset set = load_dataset(options.name, options.root, files);
  const auto steps = steps_of(options.augment);
  const auto params =
      make_augment_params(steps, normalization_preset("none"), options.seed, {set.train.height, set.train.width});
  const auto picked = pick_samples(set, options.count, options.seed);
  BatchBuffers batch(DeviceData::upload(set.train, {}), std::ssize(picked), DType::f32, params);
  batch.fill(picked, 0);

  SampleGrid grid;
  grid.title = fmt::format("{}: {}", set.name, steps.empty() ? "not augmented" : "");
  for (const AugmentStepConfig& step : steps) grid.title += (&step == steps.data() ? "" : ", ") + step.name;
  grid.height = static_cast<int>(batch.input.dim(1));
  grid.width = static_cast<int>(batch.input.dim(2));
  grid.images = batch.input.to_host<float>();
  for (const std::int32_t index : picked) {
    const std::int32_t label = set.train.labels[static_cast<std::size_t>(index)];
    grid.captions.push_back(set.class_names[static_cast<std::size_t>(label)]);
  }
  write_png(grid, options.samples);
  say("{} images of {} drawn to {}\n", picked.size(), set.name, options.samples);
  return 0;
}

int run(const Options& options) {
  const fs::path root = dataset_root(options.root);
  if (options.name.empty()) return list(root);
  const KnownSet& set = known_set(options.name);
  if (options.verify) return verify(set, root);
  if (!options.samples.empty()) return draw(options, set);
  if (set.built_in()) {
    say("{}: {}\n", set.name, set.summary);
    return 0;
  }
  fetch_dataset(set, root, options.url, [](const std::string& line) {
    say("{}\n", line);
    std::fflush(stdout);
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Fetches, verifies and draws data sets; without a name, lists them.\n\n  ./dataset cifar100\n",
               "dataset");
  app.add_option("name", options.name, "cifar10, cifar100 or shapes");
  app.add_option("--root", options.root, "Folder of the data sets (default: $RETORT_DATASETS, else datasets)");
  app.add_flag("--verify", options.verify, "Only check the files that are there")->needs("name");
  app.add_option("--url", options.url, "Fetch the archive from here instead of the official address")->needs("name");
  app.add_option("--samples", options.samples, "Draw augmented training images to this PNG")->needs("name");
  app.add_option("--augment", options.augment, "Steps for --samples, separated by commas, or none")
      ->capture_default_str();
  app.add_option("--count", options.count, "Images in the picture")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--seed", options.seed, "Decides which images and how they are augmented")->capture_default_str();
  return retort::tools::guarded([&] {
    if (const auto ended = retort::tools::parse(app, argc, argv)) return *ended;
    return run(options);
  });
}
