#include "engine/crc32.h"

#include <array>

namespace retort {
namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: what byte b does to the remainder when k more bytes follow it.
constexpr Tables make_tables() {
  Tables t{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t r = b;
    for (int bit = 0; bit < 8; ++bit) r = (r >> 1) ^ ((r & 1u) != 0 ? 0xEDB88320u : 0u);
    t[0][b] = r;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 0xFFu];
  }
  return t;
}

constexpr Tables kTables = make_tables();

std::uint32_t little_endian(const unsigned char* p) {
  return p[0] | std::uint32_t{p[1]} << 8 | std::uint32_t{p[2]} << 16 | std::uint32_t{p[3]} << 24;
}

}  // namespace

std::uint32_t crc32(std::uint32_t crc, const void* data, std::size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint32_t r = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    const std::uint32_t a = r ^ little_endian(p), b = little_endian(p + 4);
    r = kTables[7][a & 0xFFu] ^ kTables[6][(a >> 8) & 0xFFu] ^ kTables[5][(a >> 16) & 0xFFu] ^ kTables[4][a >> 24] ^
        kTables[3][b & 0xFFu] ^ kTables[2][(b >> 8) & 0xFFu] ^ kTables[1][(b >> 16) & 0xFFu] ^ kTables[0][b >> 24];
  }
  for (; bytes > 0; --bytes, ++p) r = (r >> 8) ^ kTables[0][(r ^ *p) & 0xFFu];
  return ~r;
}

}  // namespace retort
