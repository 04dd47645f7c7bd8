#include "data/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/random_stream.h"
#include "kernels/error.h"

namespace retort {
namespace {

// Distinct streams for the uses of kPurposeSplit.
constexpr std::uint32_t kValidationStream = 0;
constexpr std::uint32_t kFractionStream = 1;

// The members of each class among `indices`, each class shuffled by its own stream.
std::vector<std::vector<std::int32_t>> shuffled_classes(const std::vector<std::int32_t>& indices,
                                                        const std::vector<std::int32_t>& labels, std::uint64_t seed,
                                                        std::uint32_t stream) {
  std::vector<std::vector<std::int32_t>> classes;
  for (const std::int32_t index : indices) {
    check(index >= 0 && static_cast<std::size_t>(index) < labels.size(), "split: index {} of {} samples", index,
          labels.size());
    const std::int32_t label = labels[static_cast<std::size_t>(index)];
    check(label >= 0, "split: sample {} has label {}", index, label);
    if (static_cast<std::size_t>(label) >= classes.size()) classes.resize(static_cast<std::size_t>(label) + 1);
    classes[static_cast<std::size_t>(label)].push_back(index);
  }
  for (std::size_t c = 0; c < classes.size(); ++c) {
    RandomStream(seed, kPurposeSplit, stream, static_cast<std::uint32_t>(c)).shuffle(classes[c]);
  }
  return classes;
}

}  // namespace

Split split_train_validation(const std::vector<std::int32_t>& labels, double validation, std::uint64_t seed) {
  const auto total = static_cast<std::int64_t>(labels.size());
  check(validation >= 0, "split: validation is {}, expected a fraction below 1 or a number of images", validation);
  check(validation < 1 || validation == std::floor(validation),
        "split: validation is {}, expected a fraction below 1 or a whole number of images", validation);
  check(validation < static_cast<double>(std::max<std::int64_t>(total, 1)),
        "split: validation takes {} of {} images, which leaves none to train on", validation, total);
  const std::int64_t wanted =
      validation < 1 ? std::llround(validation * static_cast<double>(total)) : static_cast<std::int64_t>(validation);
  check(total == 0 || wanted < total, "split: validation takes {} of {} images, which leaves none to train on", wanted,
        total);

  std::vector<std::int32_t> all(labels.size());
  std::iota(all.begin(), all.end(), 0);
  const auto classes = shuffled_classes(all, labels, seed, kValidationStream);

  // Largest remainders: floor of each class's share, then one more where most was cut off.
  std::vector<std::int64_t> quota(classes.size()), remainder(classes.size());
  std::int64_t given = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const std::int64_t share = static_cast<std::int64_t>(classes[c].size()) * wanted;
    quota[c] = share / std::max<std::int64_t>(total, 1);
    remainder[c] = share % std::max<std::int64_t>(total, 1);
    given += quota[c];
  }
  std::vector<std::size_t> by_remainder(classes.size());
  std::iota(by_remainder.begin(), by_remainder.end(), std::size_t{0});
  std::stable_sort(by_remainder.begin(), by_remainder.end(),
                   [&](std::size_t a, std::size_t b) { return remainder[a] > remainder[b]; });
  for (std::size_t i = 0; given < wanted; ++i, ++given) ++quota[by_remainder[i]];

  Split split;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const auto middle = classes[c].begin() + quota[c];
    split.validation.insert(split.validation.end(), classes[c].begin(), middle);
    split.train.insert(split.train.end(), middle, classes[c].end());
  }
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.validation.begin(), split.validation.end());
  return split;
}

std::vector<std::int32_t> take_fraction(const std::vector<std::int32_t>& indices,
                                        const std::vector<std::int32_t>& labels, double fraction, std::uint64_t seed) {
  check(fraction > 0 && fraction <= 1, "split: fraction is {}, expected a number in (0, 1]", fraction);
  std::vector<std::int32_t> taken;
  for (const auto& members : shuffled_classes(indices, labels, seed, kFractionStream)) {
    if (members.empty()) continue;
    const auto n = std::max<long long>(1, std::llround(fraction * static_cast<double>(members.size())));
    taken.insert(taken.end(), members.begin(), members.begin() + n);
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

std::vector<std::int32_t> epoch_order(const std::vector<std::int32_t>& indices, std::uint64_t seed, int epoch,
                                      bool shuffle) {
  std::vector<std::int32_t> order = indices;
  if (shuffle) RandomStream(seed, kPurposeShuffle, static_cast<std::uint32_t>(epoch), 0).shuffle(order);
  return order;
}

}  // namespace retort
