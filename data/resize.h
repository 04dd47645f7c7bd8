// From photographs to the input of a network, in exactly the arithmetic of Pillow's Image.resize(BILINEAR) and of
// torchvision's Resize and CenterCrop on such images: what a network was trained on is what it is shown. Pillow 13 is
// what is followed: it begins with the columns of images that lose more than twice as many rows as columns. Up to Pillow
// 12 rows always went first, which makes a difference of one level in some pixels of these.
#pragma once

#include "data/image.h"

namespace retort {

// Bilinear with antialiasing: a triangle filter, widened by the factor of the reduction, along rows and along columns,
// one after the other. Weights are rounded to 22 fractional bits, each of the two results to 8 bits.
Image resized(const Image& image, int height, int width);

// The shorter side becomes `side`, the longer one keeps the proportion (rounded down).
Image resized_shorter_side(const Image& image, int side);

// The middle; an odd rest is halved to the even number. Throws Error where the image is smaller.
Image center_cropped(const Image& image, int height, int width);

}  // namespace retort
