#include "data/image_input.h"

#include <fmt/ranges.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <utility>

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

std::string ending_of(const fs::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return ending;
}

bool is_one_of(const std::string& ending, std::span<const std::string_view> endings) {
  return std::find(endings.begin(), endings.end(), ending) != endings.end();
}

// The images in a folder and in all below it, links followed.
class FolderWalk {
 public:
  FolderWalk(const std::string& top, PassedOver& passed_over) : top_(top), passed_over_(passed_over) {}

  std::vector<std::string> images() {
    const std::size_t errors_before = passed_over_.errors.size();
    visit(top_, false);
    const std::string others =
        others_.empty() ? "" : fmt::format("{} ({})", counted_others(), fmt::join(other_endings(), ", "));
    if (found_.empty() && passed_over_.errors.size() > errors_before) fail("{}", passed_over_.errors.back());
    check(!found_.empty(), "{}: no .jpg, .jpeg or .png file in it{}", top_, others.empty() ? "" : ", but " + others);
    if (!others.empty()) passed_over_.notes.push_back(fmt::format("{}: {} are left out", top_, others));
    std::sort(found_.begin(), found_.end());
    return found_;
  }

 private:
  using Identity = std::pair<dev_t, ino_t>;

  void visit(const fs::path& folder, bool linked) {
    struct stat status {};
    if (stat(folder.c_str(), &status) != 0) return passed_over_.errors.push_back(unlisted(folder, errno));
    const Identity identity{status.st_dev, status.st_ino};
    if (std::find(above_.begin(), above_.end(), identity) != above_.end()) {
      passed_over_.notes.push_back(
          fmt::format("{}: a link back to a folder that it lies in is not followed", folder.string()));
      return;
    }
    linked_ += linked ? 1 : 0;
    check(linked_ <= kMostLinkedFolders, "{}: more than {} folders are reached through links; they lead in circles",
          top_, kMostLinkedFolders);
    std::error_code error;
    fs::directory_iterator at(folder, error);
    above_.push_back(identity);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) take(*at, linked);
    above_.pop_back();
    if (error) passed_over_.errors.push_back(unlisted(folder, error.value()));
  }

  void take(const fs::directory_entry& entry, bool linked) {
    std::error_code ignored;
    const bool link = entry.is_symlink(ignored);
    if (entry.is_directory(ignored)) return visit(entry.path(), linked || link);
    const std::string ending = ending_of(entry.path());
    if (is_one_of(ending, kRead)) {
      found_.push_back(entry.path().string());
    } else if (is_one_of(ending, kNotRead)) {
      ++others_[ending];
    } else if (link && !entry.exists(ignored)) {
      passed_over_.notes.push_back(fmt::format("{}: a link to {}, which is not there", entry.path().string(),
                                               fs::read_symlink(entry.path(), ignored).string()));
    }
  }

  static std::string unlisted(const fs::path& folder, int error) {
    return fmt::format("{}: cannot be listed: {}", folder.string(), std::strerror(error));
  }

  std::string counted_others() const {
    std::size_t count = 0;
    for (const auto& [ending, files] : others_) count += files;
    return count == 1 ? "1 picture of another format" : fmt::format("{} pictures of other formats", count);
  }

  std::vector<std::string> other_endings() const {
    std::vector<std::string> endings;
    for (const auto& [ending, files] : others_) endings.push_back(ending);
    return endings;
  }

  static constexpr std::string_view kRead[] = {".jpg", ".jpeg", ".png"};
  static constexpr std::string_view kNotRead[] = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2",
                                                  ".jpe",  ".jxl", ".ppm", ".svg",  ".tif",  ".tiff", ".webp"};
  static constexpr std::size_t kMostLinkedFolders = 100'000;

  std::string top_;
  PassedOver& passed_over_;
  std::vector<Identity> above_;  // the folders that the present one lies in
  std::size_t linked_ = 0;       // folders that were reached through a link
  std::vector<std::string> found_;
  std::map<std::string, std::size_t> others_;
};

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

std::vector<std::string> find_images(const std::vector<std::string>& arguments, PassedOver* passed_over) {
  PassedOver ignored_by_caller;
  PassedOver& noted = passed_over != nullptr ? *passed_over : ignored_by_caller;
  std::vector<std::string> files;
  const auto add = [&](const std::string& path) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) return files.push_back(path);
    const std::vector<std::string> below = FolderWalk(path, noted).images();
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
