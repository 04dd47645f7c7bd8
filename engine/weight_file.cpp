#include "engine/weight_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>

#include "engine/file_kind.h"
#include "engine/safetensors.h"
#include "engine/torch_file.h"
#include "kernels/error.h"
#include "kernels/types.h"

namespace retort {

float half_to_float(std::uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  float magnitude;
  if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else if (exponent == 31) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else {
    magnitude = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  }
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

std::size_t size_of(FileType type) {
  switch (type) {
    case FileType::f64:
    case FileType::i64:
      return 8;
    case FileType::f32:
    case FileType::i32:
      return 4;
    case FileType::bf16:
    case FileType::f16:
      return 2;
    case FileType::u8:
      return 1;
  }
  return 0;
}

const char* name_of(FileType type) {
  switch (type) {
    case FileType::f64:
      return "F64";
    case FileType::f32:
      return "F32";
    case FileType::bf16:
      return "BF16";
    case FileType::f16:
      return "F16";
    case FileType::i64:
      return "I64";
    case FileType::i32:
      return "I32";
    case FileType::u8:
      return "U8";
  }
  return "?";
}

std::int64_t NamedArray::numel() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

NamedArray float_array(const std::string& name, const std::vector<std::int64_t>& shape,
                       const std::vector<float>& values) {
  const auto* const first = reinterpret_cast<const std::byte*>(values.data());
  return {name, FileType::f32, shape, {first, first + values.size() * sizeof(float)}};
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

const NamedArray* WeightFile::find(const std::string& name) const {
  const auto it = std::find_if(arrays.begin(), arrays.end(), [&](const NamedArray& a) { return a.name == name; });
  return it == arrays.end() ? nullptr : &*it;
}

std::string WeightFile::metadata_or(const std::string& key, const std::string& fallback) const {
  const auto it = metadata.find(key);
  return it == metadata.end() ? fallback : it->second;
}

std::vector<std::byte> widen_half(const std::vector<std::byte>& bytes) {
  std::vector<std::byte> out(bytes.size() * 2);
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    std::uint16_t half;
    std::memcpy(&half, &bytes[i], 2);
    const float value = half_to_float(half);
    std::memcpy(&out[2 * i], &value, 4);
  }
  return out;
}

std::uint16_t to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  std::uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;  // NaN
  } else if (magnitude >= 0x477ff000) {
    half = 0x7c00;  // 65520 and more
  } else if (magnitude < 0x38800000) {
    // Below 2^-14: a multiple of 2^-24. The product is exact, lrint() rounds ties to even.
    half = static_cast<std::uint32_t>(std::lrint(std::ldexp(std::abs(value), 24)));
  } else {
    half = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

NamedArray rounded_to(FileType type, const NamedArray& array) {
  check(array.dtype == FileType::f32 && (type == FileType::f16 || type == FileType::bf16),
        "{}: cannot be rounded from {} to {}", array.name, name_of(array.dtype), name_of(type));
  NamedArray out{array.name, type, array.shape, std::vector<std::byte>(array.bytes.size() / 2)};
  for (std::size_t i = 0; i < out.bytes.size() / 2; ++i) {
    float value;
    std::memcpy(&value, &array.bytes[4 * i], 4);
    const auto bits = type == FileType::f16 ? to_half(value) : std::bit_cast<std::uint16_t>(bf16(value));
    const std::uint32_t infinity = type == FileType::f16 ? 0x7c00 : 0x7f80;
    check(!std::isfinite(value) || (bits & 0x7fff) != infinity, "{}: holds {}, which {} cannot", array.name, value,
          name_of(type));
    std::memcpy(&out.bytes[2 * i], &bits, 2);
  }
  return out;
}

std::ifstream open_weight_file(const std::string& path) {
  std::error_code code;
  const auto status = std::filesystem::status(path, code);
  check(std::filesystem::exists(status), "{}: no such file", path);
  check(std::filesystem::is_regular_file(status), "{}: is not a file", path);
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), "{}: cannot be opened: {}", path, std::strerror(errno));
  return in;
}

WeightFile read_weight_file(const std::string& path) {
  const std::string kind = foreign_kind(path);
  check(kind.empty(), "{}: is {}", path, kind);
  std::vector<std::byte> first(16);
  std::ifstream in = open_weight_file(path);
  in.read(reinterpret_cast<char*>(first.data()), static_cast<std::streamsize>(first.size()));
  first.resize(static_cast<std::size_t>(in.gcount()));
  if (is_torch_file(first)) return read_torch_file(path);
  // A safetensors file begins with the length of its header.
  const bool impossible = first.size() > 8 && first[7] != std::byte{0};
  check(!impossible,
        "{}: is neither safetensors nor one of PyTorch's files, nor ONNX or anything else that is known by its first "
        "bytes, which are {:02x}; damaged?",
        path, fmt::join(std::span(reinterpret_cast<const std::uint8_t*>(first.data()), 8), " "));
  return read_safetensors(path);
}

}  // namespace retort
