// From run-time types and options to template arguments.
#pragma once

#include <type_traits>

#include "kernels/error.h"
#include "kernels/kernels.h"

namespace retort::kernels::cpu {

// The accumulation type "A" of kernels.h.
template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

// f(std::type_identity<T>{}) with the T of a floating type.
template <typename F>
void dispatch_floating(const char* kernel, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(std::type_identity<double>{});
    case DType::f32:
      return f(std::type_identity<float>{});
    case DType::bf16:
      return f(std::type_identity<bf16>{});
    default:
      fail("{}: expected f64, f32 or bf16, got {}", kernel, name_of(dtype));
  }
}

// f(std::type_identity<T>{}) with any T.
template <typename F>
void dispatch_any(const char* kernel, DType dtype, F&& f) {
  switch (dtype) {
    case DType::i32:
      return f(std::type_identity<std::int32_t>{});
    case DType::u8:
      return f(std::type_identity<std::uint8_t>{});
    default:
      return dispatch_floating(kernel, dtype, f);
  }
}

// Value of another element type, by way of the accumulation type where bf16 takes part.
template <typename To, typename From>
To convert_to(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<To, bf16>) {
    return bf16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<From, bf16>) {
    return static_cast<To>(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

// A value as its accumulation type.
template <typename T>
Accumulator<T> load(T value) {
  return static_cast<Accumulator<T>>(value);
}

}  // namespace retort::kernels::cpu
