// Named arrays in a file: what a checkpoint is to the rest of Retort, whichever format it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace retort {

enum class FileType : std::uint8_t { f64, f32, bf16, f16, i64, i32, u8 };

std::size_t size_of(FileType type);
const char* name_of(FileType type);  // "F32", as in a safetensors file

// One array on the host, in file layout.
struct NamedArray {
  std::string name;
  FileType dtype = FileType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;  // row-major, little-endian

  std::int64_t numel() const;
};

// An f32 array of these values, which are as many as the shape says.
NamedArray float_array(const std::string& name, const std::vector<std::int64_t>& shape,
                       const std::vector<float>& values);

std::string shape_text(const std::vector<std::int64_t>& shape);  // "[16, 3, 3, 3]"

// What stands under a name but is no array of a FileType: of use to nobody, unless a network asks for the name.
struct UnreadArray {
  std::string name;
  std::string what;  // "of type F8_E4M3"
};

struct WeightFile {
  std::string path;
  std::map<std::string, std::string> metadata;  // of PyTorch's files: "arch", where it stands beside the state dict
  std::vector<NamedArray> arrays;               // in the file's order; f16 has become f32
  std::vector<UnreadArray> unread{};
  bool ours = false;   // as write_safetensors() left it: the metadata are in our words, and every array counts
  std::string note{};  // what a user should know of how it was read, or ""

  const NamedArray* find(const std::string& name) const;  // null when absent
  std::string metadata_or(const std::string& key, const std::string& fallback) const;
};

// IEEE 754 binary16 to f32.
float half_to_float(std::uint16_t bits);
// Element by element.
std::vector<std::byte> widen_half(const std::vector<std::byte>& bytes);
// The bits of the nearest binary16, ties to even; infinity from 65520 on.
std::uint16_t to_half(float value);
// An f32 array as f16 or bf16. Throws Error, which begins with the array's name, for a finite value that it cannot
// hold.
NamedArray rounded_to(FileType type, const NamedArray& array);

// For the readers. Throws Error where there is no such file.
std::ifstream open_weight_file(const std::string& path);

// A safetensors file (engine/safetensors.h) or a state dict of PyTorch (engine/torch_file.h), told apart by the first
// bytes and not by the name. Throws Error, one line naming the file, for what is neither, saying what it is instead
// (engine/file_kind.h), or not sound.
WeightFile read_weight_file(const std::string& path);

}  // namespace retort
