// "shapes": an image set that the program makes itself, for machines without data.
//
// 32 x 32 colour drawings of a small figure (circle, square, triangle, cross) inside a large one (circle, square,
// triangle, star, cross): 20 classes. Colours, fills, position, size, rotation and stretch are independent of the
// class; small figures of all kinds lie around outside the large one, an occluder may cover a part, and there is noise.
// So no local statistic tells the class: a network has to see which figure encloses which.
#pragma once

#include <cstdint>

#include "data/dataset.h"

namespace retort {

std::vector<std::string> shapes_class_names();

// Deterministic by seed: image i of either part depends on (seed, part, i) alone. Labels go round: i mod 20.
Dataset make_shapes(std::int64_t train_count = 10000, std::int64_t test_count = 2000, std::uint64_t seed = 1);

}  // namespace retort
