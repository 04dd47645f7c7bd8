#include "data/image_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "data/image_codecs.h"

namespace retort {
namespace {

constexpr std::uintmax_t kLargestFile = std::uintmax_t{1} << 30;  // bytes

std::vector<std::uint8_t> whole_file(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (!fs::exists(status) && fs::is_symlink(path, code)) {
    fail("{}: is a link to {}, which is not there", path, fs::read_symlink(path, code).string());
  }
  check(fs::exists(status), "{}: no such file", path);
  check(fs::is_regular_file(status), "{}: is not a file", path);
  const std::uintmax_t size = fs::file_size(path, code);
  check(!code && size <= kLargestFile, "{}: {} bytes; an image of more than 1 GiB is not read", path, size);
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), "{}: cannot be opened: {}", path, std::strerror(errno));
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  return bytes;
}

}  // namespace

Image read_image_file(const std::string& path, const ImageLimits& limits) {
  const std::vector<std::uint8_t> file = whole_file(path);
  if (is_jpeg(file)) return decode_jpeg(file, path, limits);
  if (is_png(file)) return decode_png(file, path, limits);
  fail("{}: is {}, expected a JPEG or PNG", path, foreign_format(file));
}

}  // namespace retort
