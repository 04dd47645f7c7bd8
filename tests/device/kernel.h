// How a kernel is called on the stand-in device. CUDA's compiler registers kernels with the runtime; here launch()
// introduces a kernel's signature just before it is launched, so that cudaLaunchKernel knows what to copy and how to
// call it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <type_traits>
#include <utility>

namespace retort::standin {

struct Parameter {
  enum class Kind : std::uint8_t { value, read_pointer, pointer };  // to const; to what may be written
  std::size_t bytes, alignment;
  Kind kind;
};

struct Signature {
  const Parameter* parameters;
  std::size_t count;
  void (*invoke)(const void* kernel, void* const* arguments);
};

void introduce_kernel(const void* kernel, const Signature& signature, const std::source_location& where);

namespace detail {

template <typename T>
constexpr Parameter parameter() {
  static_assert(!std::is_reference_v<T>, "a kernel's parameter may not be a reference: it would be one to the host");
  static_assert(std::is_trivially_copyable_v<T>, "CUDA copies a kernel's arguments byte by byte");
  Parameter::Kind kind = Parameter::Kind::value;
  if (std::is_pointer_v<T>) {
    kind = std::is_const_v<std::remove_pointer_t<T>> ? Parameter::Kind::read_pointer : Parameter::Kind::pointer;
  }
  return {sizeof(T), alignof(T), kind};
}

template <typename... Parameters>
struct SignatureOf {
  static constexpr Parameter kParameters[] = {parameter<Parameters>()...};

  template <std::size_t... I>
  static void call(void (*kernel)(Parameters...), void* const* arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Parameters*>(arguments[I])...);
  }
  static void invoke(const void* kernel, void* const* arguments) {
    call(reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(kernel)), arguments,
         std::index_sequence_for<Parameters...>());
  }
  static constexpr Signature kSignature = {kParameters, sizeof...(Parameters), &invoke};
};

}  // namespace detail

// What lies between a struct's members may look like a pointer.
template <typename T>
void clear_padding(T& argument) {
  if constexpr (std::is_class_v<T>) __builtin_clear_padding(&argument);
}

template <typename... Parameters>
void introduce_kernel(void (*kernel)(Parameters...), const std::source_location& where) {
  introduce_kernel(reinterpret_cast<const void*>(kernel), detail::SignatureOf<Parameters...>::kSignature, where);
}

}  // namespace retort::standin
