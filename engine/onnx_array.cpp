#include "engine/onnx_array.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <type_traits>

#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "kernels/bf16.h"
#include "kernels/error.h"

namespace retort {
namespace {

using ::onnx::TensorProto;

struct Half {
  std::uint16_t bits;
};
struct Brain {
  std::uint16_t bits;
};

float widened(Half value) {
  return half_to_float(value.bits);
}
float widened(Brain value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

template <typename T>
void append(OnnxArray& array, T value) {
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, Brain>) {
    array.floats.push_back(widened(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    array.floats.push_back(static_cast<float>(value));
  } else {
    array.integers.push_back(static_cast<std::int64_t>(value));
  }
}

template <typename T>
void reserve(OnnxArray& array, std::int64_t count) {
  const auto size = static_cast<std::size_t>(count);
  std::is_integral_v<T> ? array.integers.reserve(size) : array.floats.reserve(size);
}

template <typename T>
void from_raw(OnnxArray& array, const std::string& raw, std::int64_t count, const std::string& what) {
  check(raw.size() == static_cast<std::size_t>(count) * sizeof(T), "{}: {} bytes of data for {} {} {}", what,
        raw.size(), shape_text(array.dims), name_of(array.type), count == 1 ? "element" : "elements");
  reserve<T>(array, count);
  for (std::size_t at = 0; at < raw.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, raw.data() + at, sizeof(T));
    append(array, value);
  }
}

// T from the field that protobuf keeps it in; narrow types lie in wider fields.
template <typename T, typename Field>
void from_field(OnnxArray& array, const Field& field, std::int64_t count, const std::string& what) {
  check(field.size() == count, "{}: {} values for the extents {}", what, field.size(), shape_text(array.dims));
  reserve<T>(array, count);
  for (const auto value : field) {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, Brain>) {
      append(array, T{static_cast<std::uint16_t>(value)});
    } else {
      append(array, static_cast<T>(value));
    }
  }
}

std::int64_t number(const std::string& text, const std::string& what) {
  std::int64_t value = 0;
  for (const char c : text) {
    check(c >= '0' && c <= '9' && value < (std::int64_t{1} << 50), "{}: external data at {}", what, in_quotes(text));
    value = 10 * value + (c - '0');
  }
  return value;
}

// Where external data at `location` lies: in the model's folder or below it, whatever the path is made of.
std::string external_file(const std::string& location, const std::string& what, const std::string& folder) {
  namespace fs = std::filesystem;
  const fs::path given(location);
  const bool inside = !location.empty() && given.is_relative() && given.has_filename() && location != "." &&
                      location.find_first_of(std::string("\\\0", 2)) == std::string::npos &&
                      std::find(given.begin(), given.end(), "..") == given.end();
  check(inside, "{}: has its data in {}, but only files in the model's own folder are read, and in folders below it",
        what, in_quotes(location));
  const fs::path file = (fs::path(folder) / given).lexically_normal();
  std::error_code error;
  check(fs::exists(file, error),
        "{}: its weights lie in a file of their own, {}: no such file; bring it along with the model", what,
        in_quotes(file.string()));
  const fs::path root = fs::canonical(folder, error), real = fs::canonical(file, error);
  const bool leaves = std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first != root.end();
  check(!error && !leaves,
        "{}: has its data in {}, a link that leads out of the model's own folder; only files in there are read", what,
        in_quotes(location));
  check(fs::is_regular_file(real), "{}: has its data in {}, which is not a file", what, in_quotes(file.string()));
  return file.string();
}

std::string external(const TensorProto& message, const std::string& what, const std::string& folder,
                     std::int64_t bytes) {
  std::string location;
  std::int64_t offset = 0, length = -1;
  for (const auto& entry : message.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = number(entry.value(), what);
    if (entry.key() == "length") length = number(entry.value(), what);
  }
  check(!folder.empty(), "{}: has its data in another file, {}, which is not read here", what, in_quotes(location));
  const std::string path = external_file(location, what, folder);
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), "{}: {} cannot be opened: {}", what, in_quotes(path), std::strerror(errno));
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path));
  check(length < 0 || length == bytes, "{}: {} bytes of external data where its extents need {}", what, length, bytes);
  check(offset <= size && bytes <= size - offset,
        "{}: needs bytes {} to {} of {}, which has {}; it was cut off, or belongs to another model", what, offset,
        offset + bytes, in_quotes(path), size);
  std::string data(static_cast<std::size_t>(bytes), '\0');
  in.seekg(offset);
  in.read(data.data(), static_cast<std::streamsize>(bytes));
  check(in.gcount() == static_cast<std::streamsize>(bytes), "{}: {} cannot be read", what, in_quotes(path));
  return data;
}

template <typename T, typename Field>
void fill(OnnxArray& array, TensorProto& message, const Field& field, const std::string& what,
          const std::string& folder) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 36;
  const std::int64_t count = element_count(array.dims, what, kLargest);
  if (message.data_location() == TensorProto::EXTERNAL) {
    from_raw<T>(array, external(message, what, folder, count * static_cast<std::int64_t>(sizeof(T))), count, what);
  } else if (message.has_raw_data()) {
    check(field.empty(), "{}: its data is there twice", what);
    from_raw<T>(array, message.raw_data(), count, what);
    message.clear_raw_data();
  } else {
    from_field<T>(array, field, count, what);
  }
}

}  // namespace

OnnxType onnx_type(int data_type) {
  switch (data_type) {
    case TensorProto::FLOAT:
      return OnnxType::f32;
    case TensorProto::DOUBLE:
      return OnnxType::f64;
    case TensorProto::FLOAT16:
      return OnnxType::f16;
    case TensorProto::BFLOAT16:
      return OnnxType::bf16;
    case TensorProto::INT64:
      return OnnxType::i64;
    case TensorProto::INT32:
      return OnnxType::i32;
    case TensorProto::INT16:
      return OnnxType::i16;
    case TensorProto::INT8:
      return OnnxType::i8;
    case TensorProto::UINT64:
      return OnnxType::u64;
    case TensorProto::UINT32:
      return OnnxType::u32;
    case TensorProto::UINT16:
      return OnnxType::u16;
    case TensorProto::UINT8:
      return OnnxType::u8;
    case TensorProto::BOOL:
      return OnnxType::boolean;
    default:
      return OnnxType::other;
  }
}

OnnxArray onnx_array(TensorProto& message, const std::string& what, const std::string& folder) {
  OnnxArray array;
  array.type = onnx_type(message.data_type());
  array.dims.assign(message.dims().begin(), message.dims().end());
  check(!message.has_segment(), "{}: is a segment of a tensor, which is not read", what);
  switch (array.type) {
    case OnnxType::f32:
      fill<float>(array, message, message.float_data(), what, folder);
      break;
    case OnnxType::f64:
      fill<double>(array, message, message.double_data(), what, folder);
      break;
    case OnnxType::f16:
      fill<Half>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::bf16:
      fill<Brain>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::i64:
      fill<std::int64_t>(array, message, message.int64_data(), what, folder);
      break;
    case OnnxType::i32:
      fill<std::int32_t>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::i16:
      fill<std::int16_t>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::i8:
      fill<std::int8_t>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::u64:
      fill<std::uint64_t>(array, message, message.uint64_data(), what, folder);
      break;
    case OnnxType::u32:
      fill<std::uint32_t>(array, message, message.uint64_data(), what, folder);
      break;
    case OnnxType::u16:
      fill<std::uint16_t>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::u8:
      fill<std::uint8_t>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::boolean:
      fill<std::uint8_t>(array, message, message.int32_data(), what, folder);
      break;
    case OnnxType::other:
      fail(
          "{}: is of ONNX's data type {}, which is not read (numbers and truth values are, strings and complex, 4-bit "
          "and 8-bit floating ones are not)",
          what, message.data_type());
  }
  return array;
}

}  // namespace retort
