#include "data/image_input.h"

#include <glob.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>

#include "data/image_file.h"
#include "data/resize.h"
#include "kernels/error.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

constexpr int kLargestSide = 16384, kResizedExactly = 64;

struct Size {
  int height, width;
  bool single;  // was one number
};

Size parse_size(const char* option, const std::string& text) {
  int values[2] = {0, 0};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  int count = 0;
  for (; count < 2; ++count) {
    const auto parsed = std::from_chars(at, end, values[count]);
    if (parsed.ec != std::errc() || values[count] < 1 || values[count] > kLargestSide) break;
    at = parsed.ptr;
    if (at == end || *at != 'x') {
      ++count;
      break;
    }
    ++at;
  }
  check(count > 0 && at == end && text.back() != 'x',
        "{} {}: expected a number of pixels or WIDTHxHEIGHT, each from 1 to {}", option, text, kLargestSide);
  return count == 1 ? Size{values[0], values[0], true} : Size{values[1], values[0], false};
}

bool is_image_name(const fs::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png";
}

std::vector<std::string> images_below(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error), end;
       !error && at != end; at.increment(error)) {
    if (is_image_name(at->path()) && !at->is_directory(error)) found.push_back(at->path().string());
  }
  check(!error, "{}: cannot be listed: {}", folder, error.message());
  check(!found.empty(), "{}: no .jpg, .jpeg or .png file in it", folder);
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t matches{};
  const std::unique_ptr<glob_t, decltype(&globfree)> release(&matches, globfree);
  const int status = glob(pattern.c_str(), 0, nullptr, &matches);
  check(status == 0, "{}: matches nothing", pattern);
  return {matches.gl_pathv, matches.gl_pathv + matches.gl_pathc};
}

std::string size_text(int height, int width) {
  return fmt::format("{}x{}", width, height);
}

}  // namespace

Image InputPlan::apply(const Image& image) const {
  const Image full =
      shorter_side > 0 ? resized_shorter_side(image, shorter_side) : resized(image, resize_height, resize_width);
  return full.height == height && full.width == width ? full : center_cropped(full, height, width);
}

std::string InputPlan::text() const {
  if (shorter_side > 0) return fmt::format("shorter side to {}, middle {}", shorter_side, size_text(height, width));
  const std::string exact = "resized to " + size_text(resize_height, resize_width);
  if (resize_height == height && resize_width == width) return exact;
  return exact + ", middle " + size_text(height, width);
}

InputPlan input_plan(std::int64_t height, std::int64_t width, const std::string& resize, const std::string& crop) {
  InputPlan plan;
  plan.height = static_cast<int>(height);
  plan.width = static_cast<int>(width);
  if (!crop.empty()) {
    const Size size = parse_size("--crop", crop);
    plan.height = size.height;
    plan.width = size.width;
  }
  const int larger = std::max(plan.height, plan.width);
  if (resize.empty()) {
    if (crop.empty() && larger <= kResizedExactly) {
      plan.resize_height = plan.height;
      plan.resize_width = plan.width;
    } else {
      plan.shorter_side = static_cast<int>(std::lround(larger / 0.875));
    }
    return plan;
  }
  const Size size = parse_size("--resize", resize);
  if (size.single) {
    plan.shorter_side = size.height;
  } else {
    plan.resize_height = size.height;
    plan.resize_width = size.width;
    if (crop.empty()) {
      plan.height = size.height;
      plan.width = size.width;
    }
  }
  check(size.height >= plan.height && size.width >= plan.width,
        "--resize {}: leaves less than the {} that are cut out; choose another --crop", resize,
        size_text(plan.height, plan.width));
  return plan;
}

std::vector<std::string> find_images(const std::vector<std::string>& arguments) {
  std::vector<std::string> files;
  const auto add = [&](const std::string& path) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) return files.push_back(path);
    const std::vector<std::string> below = images_below(path);
    files.insert(files.end(), below.begin(), below.end());
  };
  for (const std::string& argument : arguments) {
    std::error_code ignored;
    if (fs::exists(argument, ignored) || argument.find_first_of("*?[") == std::string::npos) {
      add(argument);
    } else {
      for (const std::string& match : matches_of(argument)) add(match);
    }
  }
  return files;
}

ImageBatch read_images(std::span<const std::string> files, const InputPlan& plan) {
  std::vector<std::optional<Image>> images(files.size());
  std::vector<std::string> errors(files.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < files.size(); ++i) {
    try {
      const Image image = read_image_file(files[i]);
      try {
        images[i] = plan.apply(image);
      } catch (const std::exception& error) {
        errors[i] = files[i] + ": " + error.what();
      }
    } catch (const Error& error) {
      errors[i] = error.what();
    } catch (const std::exception& error) {
      errors[i] = files[i] + ": " + error.what();
    }
  }
  ImageBatch batch;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (images[i]) {
      batch.which.push_back(i);
      batch.pixels.insert(batch.pixels.end(), images[i]->pixels.begin(), images[i]->pixels.end());
    } else {
      batch.errors.push_back(errors[i]);
    }
  }
  return batch;
}

}  // namespace retort
