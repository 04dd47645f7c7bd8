#include "engine/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/atomic_file.h"
#include "engine/crc32.h"
#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr const char* kFormatKey = "retort.format";
constexpr const char* kFormat = "1";
constexpr const char* kCrcKey = "retort.crc32";
constexpr std::string_view kNoCrc = "00000000";  // stands in for the checksum while it is computed

struct FileDType {
  const char* name;
  std::size_t bits;
  std::optional<FileType> type;  // none: of no network here
};

constexpr FileDType kDTypes[] = {
    {"F64", 64, FileType::f64},
    {"F32", 32, FileType::f32},
    {"F16", 16, FileType::f32},
    {"BF16", 16, FileType::bf16},
    {"I64", 64, FileType::i64},
    {"I32", 32, FileType::i32},
    {"U8", 8, FileType::u8},
    {"BOOL", 8, {}},
    {"I8", 8, {}},
    {"I16", 16, {}},
    {"U16", 16, {}},
    {"U32", 32, {}},
    {"U64", 64, {}},
    {"C64", 64, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
};

struct Entry {
  std::string name;
  const FileDType* dtype = nullptr;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // within the data
};

struct Header {
  std::string text;  // the JSON with its padding
  std::uint64_t data_bytes = 0;
  std::map<std::string, std::string> metadata;
  std::vector<Entry> entries;  // in the order of their bytes
};

Json parse_json(const std::string& path, const std::string& text) {
  // A JSON object may repeat a key, and the parser would keep the last: here that is an error. The deepest thing in a
  // header is a number in a list in an entry, which also bounds what a hostile header can make the parser build.
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    check(depth <= 3, "{}: byte 8: the header is nested too deeply", path);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& name = value.get_ref<const std::string&>();
      check(keys.back().insert(name).second, "{}: the header has the name {} twice", path, in_quotes(name));
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::parse_error& e) {
    fail("{}: byte {}: the header is not valid JSON", path, 8 + e.byte);
  } catch (const Json::exception&) {
    fail("{}: byte 8: the header is not valid JSON", path);  // a number out of range, say
  }
}

Entry parse_entry(const std::string& path, const std::string& name, const Json& json) {
  const std::string where = fmt::format("{}: header: {}", path, in_quotes(name));
  check(json.is_object() && json.size() == 3 && json.contains("dtype") && json.contains("shape") &&
            json.contains("data_offsets"),
        "{}: expected dtype, shape and data_offsets", where);
  Entry e;
  e.name = name;
  const Json& dtype = json["dtype"];
  check(dtype.is_string(), "{}: dtype is not a string", where);
  const auto* const known = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const FileDType& d) {
    return dtype.get_ref<const std::string&>() == d.name;
  });
  check(known != std::end(kDTypes), "{}: unknown dtype {}", where, in_quotes(dtype.get_ref<const std::string&>()));
  e.dtype = known;
  check(json["shape"].is_array(), "{}: shape is not a list", where);
  std::uint64_t bits = e.dtype->bits;
  for (const Json& extent : json["shape"]) {
    check(extent.is_number_unsigned() && extent.get<std::uint64_t>() <= INT64_MAX, "{}: an extent of {}", where,
          in_quotes(extent.dump(-1, ' ', true, Json::error_handler_t::replace)));
    e.shape.push_back(extent.get<std::int64_t>());
    check(!__builtin_mul_overflow(bits, extent.get<std::uint64_t>(), &bits), "{}: shape {} is too large", where,
          shape_text(e.shape));
  }
  const Json& offsets = json["data_offsets"];
  check(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(),
        "{}: data_offsets are not two numbers", where);
  e.begin = offsets[0].get<std::uint64_t>();
  e.end = offsets[1].get<std::uint64_t>();
  check(e.begin <= e.end, "{}: data_offsets {} to {} run backwards", where, e.begin, e.end);
  const std::uint64_t bytes = bits / 8;
  check(bits % 8 == 0 && e.end - e.begin == bytes,
        "{}: data_offsets {} to {} hold {} bytes, but {} of shape {} needs {}", where, e.begin, e.end, e.end - e.begin,
        e.dtype->name, shape_text(e.shape), bytes);
  return e;
}

void parse_metadata(const std::string& path, const Json& json, Header& header) {
  check(json.is_object(), "{}: header: __metadata__ is not an object", path);
  for (const auto& [key, value] : json.items()) {
    check(value.is_string(), "{}: header: metadata {} is not a string", path, in_quotes(key));
    header.metadata.emplace(key, value.get<std::string>());
  }
}

// Every byte of the data must belong to exactly one array.
void check_layout(const std::string& path, const Header& header) {
  std::uint64_t expected = 0;
  const std::uint64_t base = 8 + header.text.size();
  for (const Entry& e : header.entries) {
    check(e.end <= header.data_bytes, "{}: {} ends at byte {}, but the file ends at byte {}: truncated or altered",
          path, in_quotes(e.name), base + e.end, base + header.data_bytes);
    check(e.begin == expected, "{}: {} begins at byte {}, but the bytes before it end at {}: arrays {}", path,
          in_quotes(e.name), base + e.begin, base + expected, e.begin < expected ? "overlap" : "leave a gap");
    expected = e.end;
  }
  check(expected == header.data_bytes, "{}: the last array ends at byte {}, but the file ends at byte {}", path,
        base + expected, base + header.data_bytes);
}

void read_exactly(const std::string& path, std::ifstream& in, void* to, std::uint64_t bytes, std::uint64_t at) {
  in.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
  check(static_cast<std::uint64_t>(in.gcount()) == bytes, "{}: byte {}: cannot be read", path,
        at + static_cast<std::uint64_t>(in.gcount()));
}

Header read_header(const std::string& path, std::ifstream& in) {
  const std::uint64_t file_bytes = std::filesystem::file_size(path);
  check(file_bytes >= 8, "{}: {} bytes are too few for a safetensors file", path, file_bytes);
  std::uint64_t length = 0;
  read_exactly(path, in, &length, 8, 0);
  check(length <= kMaxHeaderBytes, "{}: byte 0: a header of {} bytes is above the limit of {}: not a safetensors file",
        path, length, kMaxHeaderBytes);
  check(length <= file_bytes - 8, "{}: byte 0: a header of {} bytes in a file of {}: truncated or altered", path,
        length, file_bytes);
  Header header;
  header.text.resize(length);
  header.data_bytes = file_bytes - 8 - length;
  read_exactly(path, in, header.text.data(), length, 8);
  const Json json = parse_json(path, header.text);
  check(json.is_object(), "{}: byte 8: the header is not an object", path);
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      parse_metadata(path, value, header);
    } else {
      header.entries.push_back(parse_entry(path, name, value));
    }
  }
  std::sort(header.entries.begin(), header.entries.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  check_layout(path, header);
  return header;
}

std::uint32_t crc_of_header(const std::string& text) {
  const std::uint64_t length = text.size();
  return crc32(crc32(0, &length, 8), text.data(), text.size());
}

// Where the eight digits stand in the header's text; npos where they do not.
std::size_t find_crc_digits(const std::string& text, const std::string& digits) {
  const std::string pattern = fmt::format("\"{}\":\"{}\"", kCrcKey, digits);
  const std::size_t at = text.find(pattern);
  return at == std::string::npos ? at : at + pattern.size() - 1 - digits.size();
}

}  // namespace

WeightFile read_safetensors(const std::string& path) {
  std::ifstream in = open_weight_file(path);
  Header header = read_header(path, in);
  const bool ours = header.metadata.contains(kFormatKey) || header.metadata.contains(kCrcKey);
  const std::string digits = ours ? header.metadata[kCrcKey] : "";
  std::uint32_t crc = 0;
  if (ours) {
    const std::size_t at = find_crc_digits(header.text, digits);
    check(digits.size() == kNoCrc.size() && at != std::string::npos && header.metadata[kFormatKey] == kFormat,
          "{}: header: the checksum is damaged, or of a format that this version does not know", path);
    header.text.replace(at, kNoCrc.size(), kNoCrc);
    crc = crc_of_header(header.text);
  }
  WeightFile file;
  file.path = path;
  file.ours = ours;
  for (const Entry& e : header.entries) {
    if (!e.dtype->type) {
      check(!ours, "{}: {} is of type {}, which Retort does not write", path, in_quotes(e.name), e.dtype->name);
      file.unread.push_back({e.name, fmt::format("of type {}", e.dtype->name)});
      in.seekg(static_cast<std::streamoff>(8 + header.text.size() + e.end));
      continue;
    }
    NamedArray array{e.name, *e.dtype->type, e.shape, std::vector<std::byte>(e.end - e.begin)};
    read_exactly(path, in, array.bytes.data(), array.bytes.size(), 8 + header.text.size() + e.begin);
    if (ours) crc = crc32(crc, array.bytes.data(), array.bytes.size());
    if (std::string_view(e.dtype->name) == "F16") array.bytes = widen_half(array.bytes);
    file.arrays.push_back(std::move(array));
  }
  check(!ours || fmt::format("{:08x}", crc) == digits,
        "{}: the checksum of bytes 0 to {} does not match: the file is damaged", path,
        8 + header.text.size() + header.data_bytes);
  header.metadata.erase(kFormatKey);
  header.metadata.erase(kCrcKey);
  file.metadata = std::move(header.metadata);
  return file;
}

std::map<std::string, std::string> read_safetensors_metadata(const std::string& path) {
  std::ifstream in = open_weight_file(path);
  Header header = read_header(path, in);
  header.metadata.erase(kFormatKey);
  header.metadata.erase(kCrcKey);
  return std::move(header.metadata);
}

void write_safetensors(const std::string& path, const std::vector<NamedArray>& arrays,
                       const std::map<std::string, std::string>& metadata) {
  // The widest types first keeps every array aligned to its element, whatever the others' lengths.
  std::vector<const NamedArray*> order;
  for (const NamedArray& array : arrays) order.push_back(&array);
  std::stable_sort(order.begin(), order.end(),
                   [](const NamedArray* a, const NamedArray* b) { return size_of(a->dtype) > size_of(b->dtype); });
  nlohmann::ordered_json header;
  header["__metadata__"] = metadata;
  header["__metadata__"][kFormatKey] = kFormat;
  header["__metadata__"][kCrcKey] = kNoCrc;
  std::set<std::string> names{"__metadata__"};
  std::uint64_t offset = 0;
  for (const NamedArray* a : order) {
    check(names.insert(a->name).second, "{}: two arrays named {}", path, in_quotes(a->name));
    check(static_cast<std::uint64_t>(a->numel()) * size_of(a->dtype) == a->bytes.size(),
          "{}: {}: {} bytes for {} of shape {}", path, in_quotes(a->name), a->bytes.size(), name_of(a->dtype),
          shape_text(a->shape));
    const std::uint64_t end = offset + a->bytes.size();
    header[a->name] = {{"dtype", name_of(a->dtype)}, {"shape", a->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    fail("{}: a name or the metadata is not UTF-8", path);
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  check(text.size() <= kMaxHeaderBytes, "{}: a header of {} bytes is above the limit of {}", path, text.size(),
        kMaxHeaderBytes);
  std::uint32_t crc = crc_of_header(text);
  for (const NamedArray* a : order) crc = crc32(crc, a->bytes.data(), a->bytes.size());
  const std::size_t at = find_crc_digits(text, std::string(kNoCrc));
  check(at != std::string::npos, "{}: no place for the checksum", path);
  text.replace(at, kNoCrc.size(), fmt::format("{:08x}", crc));

  AtomicFile file(path);
  const std::uint64_t length = text.size();
  file.write(&length, 8);
  file.write(text);
  for (const NamedArray* a : order) file.write(a->bytes.data(), a->bytes.size());
  file.commit();
}

}  // namespace retort
