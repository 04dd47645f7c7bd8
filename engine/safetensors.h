// Safetensors files: an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and
// the arrays' bytes without gaps (https://github.com/huggingface/safetensors, "Format").
//
// Files written here carry the metadata "retort.format" and "retort.crc32". The checksum covers the whole file, header
// included, so that a single flipped byte is refused. A file without these two keys is somebody else's and is read
// after the structural checks alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace retort {

enum class FileType : std::uint8_t { f64, f32, bf16, i64, i32, u8 };

std::size_t size_of(FileType type);
const char* name_of(FileType type);  // "F32", as in the file

// One array on the host, in file layout.
struct NamedArray {
  std::string name;
  FileType dtype = FileType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;  // row-major, little-endian

  std::int64_t numel() const;
};

std::string shape_text(const std::vector<std::int64_t>& shape);  // "[16, 3, 3, 3]"

struct SafetensorsFile {
  std::string path;
  std::map<std::string, std::string> metadata;  // without the two keys of the checksum
  std::vector<NamedArray> arrays;               // in the order of their bytes; F16 has become f32

  const NamedArray* find(const std::string& name) const;  // null when absent
  std::string metadata_or(const std::string& key, const std::string& fallback) const;
};

// Throws Error, one line naming the file and the byte, for anything that is not a whole, sound file.
SafetensorsFile read_safetensors(const std::string& path);

// Only the metadata; reads and checks the whole header but none of the data.
std::map<std::string, std::string> read_safetensors_metadata(const std::string& path);

// Atomic (engine/atomic_file.h). Throws Error for a duplicate name or bytes that do not fit the shape.
void write_safetensors(const std::string& path, const std::vector<NamedArray>& arrays,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace retort
