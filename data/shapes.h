// "shapes": an image set that the program makes itself, for machines without data.
//
// 32 x 32 colour drawings of a small figure (circle, square, triangle, cross) inside a large one (circle, square,
// triangle, star, cross): 20 classes. Colours, fills, position, size and stretch are independent of the class. Each
// image has a difficulty, evenly spread, from plain and upright to turned, faint and noisy with small figures of all
// kinds around the large one and a bar across. So no local statistic tells the class, and a network has to see which
// figure encloses which; small networks learn the easy half, deeper ones more.
#pragma once

#include <cstdint>

#include "data/dataset.h"

namespace retort {

std::vector<std::string> shapes_class_names();

// Deterministic by seed: image i of either part depends on (seed, part, i) alone. Labels go round: i mod 20.
Dataset make_shapes(std::int64_t train_count = 20000, std::int64_t test_count = 4000, std::uint64_t seed = 1);

}  // namespace retort
