// f32 vectors as wide as this build's processor has them (GCC and clang vector extensions).
#pragma once

#include "kernels/cpu/row_product.h"

namespace retort::kernels::simd {

typedef float F32 __attribute__((vector_size(kVectorBytes)));
typedef float UnalignedF32 __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));

// Without AVX2 the vectors below are emulated, and oneDNN, which looks at the processor at run time, is faster.
#if defined(__AVX2__) && defined(__FMA__)
inline constexpr bool kNative = true;
#else
inline constexpr bool kNative = false;
#endif

inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(float));

inline F32 load(const float* from) {
  return *reinterpret_cast<const UnalignedF32*>(from);
}
inline void store(float* to, F32 value) {
  *reinterpret_cast<UnalignedF32*>(to) = value;
}

inline void prefetch(const float* from) {
  __builtin_prefetch(from);
}

}  // namespace retort::kernels::simd
