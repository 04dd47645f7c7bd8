// Numbers in device memory as the stand-in libraries read and write them, and what rounding does to them.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/bf16.h"

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

// Types that the libraries compute with.
enum class Number : std::uint8_t { f64, f32, bf16, f16 };

inline std::size_t size_of(Number type) {
  return type == Number::f64 ? 8 : type == Number::f32 ? 4 : 2;
}

template <typename T>
T read_element(Number type, const void* data, std::int64_t index) {
  switch (type) {
    case Number::f64:
      return static_cast<T>(load<double>(data, index));
    case Number::f32:
      return static_cast<T>(load<float>(data, index));
    case Number::bf16:
      return static_cast<T>(static_cast<float>(load<bf16>(data, index)));
    case Number::f16:
      break;
  }
  return static_cast<T>(load<_Float16>(data, index));
}

template <typename T>
void write_element(Number type, void* data, std::int64_t index, T value) {
  switch (type) {
    case Number::f64:
      return store(data, index, static_cast<double>(value));
    case Number::f32:
      return store(data, index, static_cast<float>(value));
    case Number::bf16:
      return store(data, index, bf16(static_cast<float>(value)));
    case Number::f16:
      return store(data, index, static_cast<_Float16>(value));
  }
}

// What an addition in no order makes of sums: other low bits at every call.
template <typename T>
void disturb(std::vector<T>& sums) {
  static std::atomic<std::uint32_t> calls{0};
  std::uint32_t state = 2654435761u * ++calls;
  for (T& sum : sums) {
    state = state * 1664525u + 1013904223u;
    sum *= T{1} + static_cast<T>(state >> 8) * static_cast<T>(0x1p-30);
  }
}

inline bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto* const first = static_cast<const unsigned char*>(a);
  const auto* const second = static_cast<const unsigned char*>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

}  // namespace retort::standin
