// Photographs from files: JPEG through libjpeg-turbo, PNG through libpng, told apart by their first bytes.
//
// The result is what PIL's Image.open(file).convert("RGB") gives, byte for byte: an EXIF orientation is not applied,
// colour profiles and gamma are not looked at, transparency is dropped and not blended, grey becomes three equal
// channels, of 16 bits a channel the upper 8 count, CMYK and YCCK are taken to be inverted as Adobe writes them. One
// difference: of 16-bit grey too the upper 8 bits count, where PIL cuts off at 255.
#pragma once

#include <cstdint>
#include <string>

#include "data/image.h"

namespace retort {

// Checked before memory is taken.
struct ImageLimits {
  std::int64_t side = 16384;          // pixels
  std::int64_t pixels = 256'000'000;  // height * width
};

// Throws Error, one line naming the file, for what is no JPEG or PNG, damaged, cut short or too large.
Image read_image_file(const std::string& path, const ImageLimits& limits = {});

}  // namespace retort
