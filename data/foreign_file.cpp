// What is in a file that is neither JPEG nor PNG, by its first bytes: what it is called says nothing.
#include <algorithm>
#include <cctype>
#include <string_view>

#include "data/image_codecs.h"

namespace retort {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::size_t at;
  std::string_view bytes;
  const char* name;
};

constexpr Signature kSignatures[] = {
    {0, "GIF87a"sv, "a GIF picture"},
    {0, "GIF89a"sv, "a GIF picture"},
    {8, "WEBP"sv, "a WebP picture"},
    {0, "II*\0"sv, "a TIFF picture"},
    {0, "MM\0*"sv, "a TIFF picture"},
    {0, "II+\0"sv, "a BigTIFF picture"},
    {0, "MM\0+"sv, "a BigTIFF picture"},
    {0, "\0\0\0\x0cjP  "sv, "a JPEG 2000 picture"},
    {0, "\xff\x4f\xff\x51"sv, "a JPEG 2000 picture"},
    {0, "\0\0\0\x0cJXL "sv, "a JPEG XL picture"},
    {0, "\xff\x0a"sv, "a JPEG XL picture"},
    {0, "8BPS"sv, "a Photoshop picture"},
    {0, "\x76\x2f\x31\x01"sv, "an OpenEXR picture"},
    {0, "qoif"sv, "a QOI picture"},
    {0, "DDS "sv, "a DDS picture"},
    {0, "\0\0\1\0"sv, "an icon (ICO)"},
    {0, "%PDF-"sv, "a PDF document"},
    {0, "%!PS"sv, "a PostScript document"},
    {0, "PK\3\4"sv, "a ZIP archive"},
    {0, "\x1f\x8b"sv, "a gzip file"},
    {0, "\x93NUMPY"sv, "a NumPy array"},
    {0, "\x89HDF"sv, "an HDF5 file"},
    {0, "RIFF"sv, "a RIFF file (film or sound)"},
    {0, "\x1a\x45\xdf\xa3"sv, "a film (Matroska)"},
    {0, "version https://git-lfs"sv, "a Git LFS pointer (git lfs pull fetches the picture)"},
};

// ISO base media files say in their brands what they hold.
const char* by_brand(std::string_view file) {
  if (file.substr(4, 4) != "ftyp") return nullptr;
  const std::string_view brands = file.substr(8, 32);
  const auto has = [&](std::string_view brand) { return brands.find(brand) != std::string_view::npos; };
  if (has("avif") || has("avis")) return "an AVIF picture";
  if (has("heic") || has("heix") || has("heim") || has("hevc")) return "a HEIC picture";
  if (has("mif1") || has("msf1")) return "a HEIF picture";
  return has("crx ") ? "a raw photograph (CR3)" : "a film (MP4)";
}

bool is_bmp(std::string_view file) {
  return file.starts_with("BM") && file.size() >= 26 && file.substr(6, 4) == "\0\0\0\0"sv;
}

bool is_netpbm(std::string_view file) {
  return file.size() > 3 && file[0] == 'P' && file[1] >= '1' && file[1] <= '7' &&
         std::isspace(static_cast<unsigned char>(file[2])) != 0;
}

const char* by_text(std::string_view file) {
  std::string begin;
  if (file.starts_with("\xef\xbb\xbf")) file.remove_prefix(3);
  file.remove_prefix(std::min(file.find_first_not_of(" \t\r\n"), file.size()));
  for (const char c : file.substr(0, 512)) begin += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (begin.find("<svg") != std::string::npos) return "an SVG drawing";
  if (begin.starts_with("<!doctype html") || begin.starts_with("<html")) return "a web page (HTML)";
  return begin.starts_with("<?xml") ? "an XML file" : nullptr;
}

}  // namespace

std::string foreign_format(std::span<const std::uint8_t> bytes) {
  const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (file.empty()) return "empty";
  for (const Signature& s : kSignatures) {
    if (file.size() > s.at && file.substr(s.at).starts_with(s.bytes)) return s.name;
  }
  if (is_bmp(file)) return "a BMP picture";
  if (is_netpbm(file)) return "a Netpbm picture";
  const char* name = file.size() >= 12 ? by_brand(file) : nullptr;
  if (name == nullptr) name = by_text(file);
  return name != nullptr ? name : "neither of the formats that are read";
}

}  // namespace retort
