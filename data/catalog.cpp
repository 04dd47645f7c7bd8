#include "data/catalog.h"

#include <fmt/ranges.h>

#include "data/shapes.h"
#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

const std::vector<std::string> kCifar10Names = {"airplane", "automobile", "bird",  "cat",  "deer",
                                                "dog",      "frog",       "horse", "ship", "truck"};

const std::vector<std::string> kCifar100Names = {
    "apple",      "aquarium_fish", "baby",         "bear",       "beaver",      "bed",         "bee",
    "beetle",     "bicycle",       "bottle",       "bowl",       "boy",         "bridge",      "bus",
    "butterfly",  "camel",         "can",          "castle",     "caterpillar", "cattle",      "chair",
    "chimpanzee", "clock",         "cloud",        "cockroach",  "couch",       "crab",        "crocodile",
    "cup",        "dinosaur",      "dolphin",      "elephant",   "flatfish",    "forest",      "fox",
    "girl",       "hamster",       "house",        "kangaroo",   "keyboard",    "lamp",        "lawn_mower",
    "leopard",    "lion",          "lizard",       "lobster",    "man",         "maple_tree",  "motorcycle",
    "mountain",   "mouse",         "mushroom",     "oak_tree",   "orange",      "orchid",      "otter",
    "palm_tree",  "pear",          "pickup_truck", "pine_tree",  "plain",       "plate",       "poppy",
    "porcupine",  "possum",        "rabbit",       "raccoon",    "ray",         "road",        "rocket",
    "rose",       "sea",           "seal",         "shark",      "shrew",       "skunk",       "skyscraper",
    "snail",      "snake",         "spider",       "squirrel",   "streetcar",   "sunflower",   "sweet_pepper",
    "table",      "tank",          "telephone",    "television", "tiger",       "tractor",     "train",
    "trout",      "tulip",         "turtle",       "wardrobe",   "whale",       "willow_tree", "wolf",
    "woman",      "worm"};

KnownSet cifar10() {
  KnownSet set;
  set.name = "cifar10";
  set.summary = "CIFAR-10: 50,000 + 10,000 photographs of 32 x 32, 10 classes";
  set.folder = "cifar-10-batches-bin";
  set.archive_url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
  set.archive_md5 = "c32a1d4ab5d03f1284b67883e8d87530";
  set.files = {{"data_batch_1.bin", 10000, true, "aadd24acce27caa71bf4b10992e9e7b2d74c2540"},
               {"data_batch_2.bin", 10000, true, ""},
               {"data_batch_3.bin", 10000, true, ""},
               {"data_batch_4.bin", 10000, true, ""},
               {"data_batch_5.bin", 10000, true, ""},
               {"test_batch.bin", 10000, false, "67eb016db431130d61cd03c7ad570b013799c88c"}};
  set.names_file = "batches.meta.txt";
  set.class_names = kCifar10Names;
  set.label_bytes = 1;
  set.height = set.width = 32;
  return set;
}

KnownSet cifar100() {
  KnownSet set;
  set.name = "cifar100";
  set.summary = "CIFAR-100: 50,000 + 10,000 photographs of 32 x 32, 100 classes";
  set.folder = "cifar-100-binary";
  set.archive_url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz";
  set.archive_md5 = "03b5dce01913d631647c71ecec9e9cb8";
  set.files = {{"train.bin", 50000, true, "e207cd2e05b73b1393c74c7f5e7bea451d63e08e"},
               {"test.bin", 10000, false, "8fb6623e830365ff53cf14adec797474f5478006"}};
  set.names_file = "fine_label_names.txt";
  set.class_names = kCifar100Names;
  set.label_bytes = 2;  // coarse, fine
  set.height = set.width = 32;
  return set;
}

KnownSet shapes() {
  KnownSet set;
  set.name = "shapes";
  set.summary = "made by the program: 20,000 + 4,000 drawings of 32 x 32, 20 classes";
  set.class_names = shapes_class_names();
  set.height = set.width = 32;
  return set;
}

}  // namespace

const std::vector<KnownSet>& known_sets() {
  static const std::vector<KnownSet> sets = {cifar10(), cifar100(), shapes()};
  return sets;
}

const KnownSet& known_set(const std::string& name) {
  std::vector<std::string> names;
  for (const KnownSet& set : known_sets()) {
    if (set.name == name) return set;
    names.push_back(set.name);
  }
  fail("data set {} is unknown{}; known: {}", in_quotes(name), did_you_mean(name, names), fmt::join(names, ", "));
}

}  // namespace retort
