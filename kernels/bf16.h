// bfloat16 as plain data: the upper half of an f32, rounded to nearest even. Usable on host and device,
// and without the CUDA toolkit, so that the SIMT tests and the CPU backend see the same type.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define RETORT_HOST_DEVICE __host__ __device__
#else
#define RETORT_HOST_DEVICE
#endif

namespace retort {

struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  RETORT_HOST_DEVICE explicit bf16(float value) {
    std::uint32_t u;
    std::memcpy(&u, &value, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);  // keep NaN a NaN
    } else {
      bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  RETORT_HOST_DEVICE operator float() const {
    const std::uint32_t u = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &u, sizeof value);
    return value;
  }
};
static_assert(sizeof(bf16) == 2);

}  // namespace retort
