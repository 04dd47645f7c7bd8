// Numbers in device memory as the stand-in libraries read and write them, and what rounding does to them.
#pragma once

#include <cstdint>
#include <cstring>

namespace retort::standin {

// What is not aligned to its size is read all the same: whether it may be is decided elsewhere.
template <typename T>
T load(const void* data, std::int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const unsigned char*>(data) + index * static_cast<std::int64_t>(sizeof(T)),
              sizeof value);
  return value;
}
template <typename T>
void store(void* data, std::int64_t index, T value) {
  std::memcpy(static_cast<unsigned char*>(data) + index * static_cast<std::int64_t>(sizeof(T)), &value, sizeof value);
}

// Keeps the upper `bits` of the significand (with the leading one), the last one rounded to nearest, ties away.
inline float round_significand(float value, int bits) {
  std::uint32_t u;
  std::memcpy(&u, &value, sizeof u);
  if ((u & 0x7f800000u) == 0x7f800000u) return value;
  const int dropped = 24 - bits;
  u = (u + (1u << (dropped - 1))) & ~((1u << dropped) - 1);
  std::memcpy(&value, &u, sizeof value);
  return value;
}
inline double round_significand(double value, int bits) {
  std::uint64_t u;
  std::memcpy(&u, &value, sizeof u);
  if ((u & 0x7ff0000000000000u) == 0x7ff0000000000000u) return value;
  const int dropped = 53 - bits;
  u = (u + (std::uint64_t{1} << (dropped - 1))) & ~((std::uint64_t{1} << dropped) - 1);
  std::memcpy(&value, &u, sizeof value);
  return value;
}

// f32 as a tensor core takes it for tf32: the lower 13 bits of the significand do not count (PTX ISA, "tf32").
inline float truncate_to_tf32(float value) {
  std::uint32_t u;
  std::memcpy(&u, &value, sizeof u);
  u &= ~0x1fffu;
  std::memcpy(&value, &u, sizeof value);
  return value;
}

// Work space after use: whatever its owner does not need is NaN or nonsense afterwards.
inline void fill_with_garbage(void* data, std::size_t bytes) {
  if (bytes > 0) std::memset(data, 0xa5, bytes / 2);
  if (bytes > 0) std::memset(static_cast<unsigned char*>(data) + bytes / 2, 0xff, bytes - bytes / 2);
}

}  // namespace retort::standin
