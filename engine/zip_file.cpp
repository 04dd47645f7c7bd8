#include "engine/zip_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "engine/crc32.h"
#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "kernels/error.h"

namespace retort {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::string_view kLocal("PK\3\4", 4), kCentral("PK\1\2", 4), kEnd("PK\5\6", 4), kEnd64("PK\6\6", 4),
    kLocator64("PK\6\7", 4);
constexpr std::uint64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20;
constexpr std::uint64_t kLongestComment = 65535;

template <typename T>
T number(const Bytes& bytes, std::uint64_t at) {  // little-endian, as is every machine this runs on
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

bool is_at(const Bytes& bytes, std::uint64_t at, std::string_view signature) {
  return at + signature.size() <= bytes.size() &&
         std::memcmp(bytes.data() + at, signature.data(), signature.size()) == 0;
}

// What does not fit into 32 bits stands in an extra field, in this order, where the 32 bits are all set.
void widen(const Bytes& directory, std::uint64_t extra, std::uint64_t end, ZipEntry& entry) {
  constexpr std::uint64_t kInExtra = 0xffffffff;
  while (extra + 4 <= end) {
    const auto kind = number<std::uint16_t>(directory, extra);
    const std::uint64_t next = std::min(end, extra + 4 + number<std::uint16_t>(directory, extra + 2));
    extra += 4;
    if (kind == 1) {
      for (std::uint64_t* const field : {&entry.size, &entry.packed, &entry.at}) {
        if (*field != kInExtra || extra + 8 > next) continue;
        *field = number<std::uint64_t>(directory, extra);
        extra += 8;
      }
    }
    extra = next;
  }
}

}  // namespace

ZipFile::ZipFile(const std::string& path) : path_(path), in_(open_weight_file(path)) {
  file_bytes_ = std::filesystem::file_size(path);
  const std::uint64_t tail = std::min(file_bytes_, kEndSize + kLongestComment + kLocator64Size);
  const Bytes last = bytes(file_bytes_ - tail, tail);
  for (std::uint64_t at = last.size() < kEndSize ? 0 : last.size() - kEndSize + 1; at-- > 0;) {
    if (!is_at(last, at, kEnd) || at + kEndSize + number<std::uint16_t>(last, at + 20) != last.size()) continue;
    std::uint64_t count = number<std::uint16_t>(last, at + 10), size = number<std::uint32_t>(last, at + 12),
                  first = number<std::uint32_t>(last, at + 16);
    if (at >= kLocator64Size && is_at(last, at - kLocator64Size, kLocator64)) {
      const Bytes end = bytes(number<std::uint64_t>(last, at - kLocator64Size + 8), kEnd64Size);
      check(is_at(end, 0, kEnd64), "{}: not a sound zip archive: its directory is damaged", path_);
      count = number<std::uint64_t>(end, 32);
      size = number<std::uint64_t>(end, 40);
      first = number<std::uint64_t>(end, 48);
    }
    read_directory(first, size, count);
    return;
  }
  fail("{}: not a sound zip archive: it has no directory at its end; truncated or altered", path_);
}

Bytes ZipFile::bytes(std::uint64_t at, std::uint64_t count) {
  check(at <= file_bytes_ && count <= file_bytes_ - at,
        "{}: not a sound zip archive: {} bytes from byte {} on in a file of {}; truncated or altered", path_, count, at,
        file_bytes_);
  Bytes out(count);
  in_.seekg(static_cast<std::streamoff>(at));
  in_.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(count));
  check(static_cast<std::uint64_t>(in_.gcount()) == count, "{}: byte {}: cannot be read", path_, at);
  return out;
}

void ZipFile::read_directory(std::uint64_t at, std::uint64_t size, std::uint64_t count) {
  const Bytes directory = bytes(at, size);
  std::uint64_t here = 0;
  for (std::uint64_t n = 0; n < count; ++n) {
    check(here + kCentralSize <= directory.size() && is_at(directory, here, kCentral),
          "{}: not a sound zip archive: entry {} of its directory is damaged", path_, n);
    const auto u16 = [&](std::uint64_t offset) { return number<std::uint16_t>(directory, here + offset); };
    const auto u32 = [&](std::uint64_t offset) { return number<std::uint32_t>(directory, here + offset); };
    const std::uint64_t name = here + kCentralSize, extra = name + u16(28), comment = extra + u16(30);
    const std::uint64_t next = comment + u16(32);
    check(next <= directory.size(), "{}: not a sound zip archive: entry {} of its directory is damaged", path_, n);
    ZipEntry entry;
    entry.name.assign(reinterpret_cast<const char*>(directory.data()) + name, extra - name);
    entry.method = u16(10);
    entry.crc = u32(16);
    entry.packed = u32(20);
    entry.size = u32(24);
    entry.at = u32(42);
    widen(directory, extra, comment, entry);
    entries_.push_back(std::move(entry));
    here = next;
  }
}

Bytes ZipFile::read(const ZipEntry& entry) {
  check(entry.method == 0 && entry.size == entry.packed,
        "{}: {}: {} bytes in {}: compressed, which PyTorch's files are not", path_, in_quotes(entry.name), entry.size,
        entry.packed);
  const Bytes header = bytes(entry.at, kLocalSize);
  check(is_at(header, 0, kLocal), "{}: {}: does not begin at byte {}: truncated or altered", path_,
        in_quotes(entry.name), entry.at);
  Bytes content =
      bytes(entry.at + kLocalSize + number<std::uint16_t>(header, 26) + number<std::uint16_t>(header, 28), entry.size);
  check(crc32(0, content.data(), content.size()) == entry.crc, "{}: {}: its checksum does not match: damaged", path_,
        in_quotes(entry.name));
  return content;
}

}  // namespace retort
