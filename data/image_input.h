// From image files to batches of one size for a network.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"

namespace retort {

// How an image is brought to the network's size.
struct InputPlan {
  int height = 0, width = 0;  // of the result
  int shorter_side = 0;       // resize so that the shorter side has it; 0: to resize_height x resize_width
  int resize_height = 0, resize_width = 0;

  Image apply(const Image& image) const;  // resize, then cut out the middle where the result is smaller
  std::string text() const;               // "shorter side to 256, middle 224x224"
};

// For a network whose input has this size. `resize` and `crop` are what a user asks for, "N" or "WxH", or "":
//   neither        up to 64 pixels a side the image is resized to exactly the network's size, beyond that so that its
//                  shorter side has size / 0.875 (rounded) and the middle is cut out, as networks are tested on
//                  ImageNet
//   resize "N"     the shorter side gets N pixels, the middle of the network's size (or `crop`) is cut out
//   resize "WxH"   exactly this size; nothing is cut out unless `crop` says so
//   crop           counts as the network's size; alone, the shorter side becomes its larger side / 0.875
// Throws Error for what is no such size or leaves less than is cut out.
InputPlan input_plan(std::int64_t height, std::int64_t width, const std::string& resize, const std::string& crop);

// One line each for what find_images() leaves out.
struct PassedOver {
  std::vector<std::string>
      notes;  // links that lead round in a circle or nowhere, pictures of formats that are not read
  std::vector<std::string> errors;  // folders that cannot be listed
};

// The images that arguments stand for: a file is itself; a folder the .jpg, .jpeg and .png files in it and in folders
// below it, links to folders followed, sorted by path; a pattern with *, ? or [ that is no file what matches it
// (glob(3), sorted). Throws Error for a folder without images and a pattern without matches; whether files are there
// and sound shows when they are read.
std::vector<std::string> find_images(const std::vector<std::string>& arguments, PassedOver* passed_over = nullptr);

struct ImageBatch {
  std::vector<std::uint8_t> pixels;  // [which.size(), height, width, 3]
  std::vector<std::size_t> which;    // positions in the list of files of those that could be read
  std::vector<std::string> errors;   // one line each for the others
};

// Reads with several threads. Throws nothing for what is wrong with a file.
ImageBatch read_images(std::span<const std::string> files, const InputPlan& plan);

}  // namespace retort
