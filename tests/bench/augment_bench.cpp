// Images a second on one core, from u8 in memory to the normalised f32 input, 32 x 32:
//   augment_bench [rounds] [steps, separated by commas]
// Processor time of this thread, fastest round; batches of 128 in random order, as training takes them.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <sstream>
#include <vector>

#include "data/augment_config.h"
#include "data/shapes.h"
#include "data/split.h"
#include "kernels/kernels.h"

namespace {

using retort::ConstView;
using retort::DType;
using retort::View;

constexpr std::int64_t kBatch = 128;

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Images a second in each round.
std::vector<double> measure(const std::vector<std::string>& names, const retort::ImageSet& set, int rounds) {
  std::vector<retort::AugmentStepConfig> steps;
  for (const std::string& name : names) steps.push_back({name, {}});
  const auto params = retort::make_augment_params(steps, retort::normalization_preset("imagenet"), 1, {32, 32});
  retort::kernels::Backend& backend = retort::kernels::backend({});

  std::vector<std::int32_t> indices(static_cast<std::size_t>(set.count));
  for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int32_t>(i);
  indices = retort::epoch_order(indices, 1, 0, true);
  std::vector<float> out(static_cast<std::size_t>(kBatch * 32 * 32 * 3));
  const std::int32_t epoch = 0;
  std::vector<double> rates;
  for (int round = -1; round < rounds; ++round) {  // round -1 warms up
    const double start = processor_seconds();
    std::int64_t images = 0;
    for (std::int64_t first = 0; first + kBatch <= set.count; first += kBatch, images += kBatch) {
      backend.augment(params, ConstView(set.images.data(), DType::u8, {set.count, 32, 32, 3}),
                      ConstView(indices.data() + first, DType::i32, {kBatch}), ConstView(&epoch, DType::i32, {1}),
                      View{out.data(), DType::f32, {kBatch, 32, 32, 3}}, {});
    }
    if (round >= 0) rates.push_back(static_cast<double>(images) / (processor_seconds() - start));
  }
  return rates;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  if (rounds < 1) {
    fmt::print(stderr, "usage: augment_bench [rounds] [steps, separated by commas]\n");
    return 2;
  }
  omp_set_num_threads(1);
  std::vector<std::vector<std::string>> pipelines = {{},
                                                     {"flip", "crop"},
                                                     {"resized_crop", "flip", "color_jitter", "rotation"},
                                                     {"flip", "crop", "color_jitter", "rotation", "resized_crop"}};
  if (argc > 2) {
    pipelines = {{}};
    std::istringstream list(argv[2]);
    for (std::string name; std::getline(list, name, ',');) pipelines[0].push_back(name);
  }
  const retort::ImageSet set = retort::make_shapes(10240, 20).train;
  fmt::print("images/s, one thread, 32 x 32, f32, {} rounds (fastest, median)\n", rounds);
  for (const auto& names : pipelines) {
    auto rates = measure(names, set, rounds);
    std::sort(rates.begin(), rates.end());
    fmt::print("{:>9.0f} {:>9.0f}  {}\n", rates.back(), rates[rates.size() / 2],
               names.empty() ? "normalise" : fmt::format("{} + normalise", fmt::join(names, " + ")));
  }
  return 0;
}
