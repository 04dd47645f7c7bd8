// What a convolution's plan depends on, and the layouts that cuDNN is told. Plain arithmetic, tested without a device.
#pragma once

#include <fmt/ranges.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/kernels.h"

namespace retort::kernels {

enum class ConvDirection : std::uint8_t { forward, backward_data, backward_weights };

struct ConvKey {
  ConvDirection direction = ConvDirection::forward;
  DType dtype = DType::f32;
  Math math = Math::standard;
  bool bias = false;
  bool residual = false;
  bool accumulate = false;  // the output's old value is added to
  Activation act = Activation::identity;
  std::int64_t alignment = 16;      // bytes, of every pointer
  std::array<std::int64_t, 4> x{};  // N, H, W, C
  std::array<std::int64_t, 4> w{};  // O, KH, KW, C / groups
  std::array<std::int64_t, 4> y{};  // N, OH, OW, O
  std::array<std::int64_t, 2> stride{1, 1};
  std::array<std::int64_t, 2> padding{0, 0};
  std::array<std::int64_t, 2> dilation{1, 1};
  std::int64_t groups = 1;

  bool operator==(const ConvKey&) const = default;
  bool has_epilogue() const { return bias || residual || act != Activation::identity; }
  // "forward bf16 tf32 bias a16 x128,32,32,64 w64,3,3,64 y128,32,32,64 s1,1 p1,1 g1": says all, one word a field;
  // "bias+residual+relu" where these follow, "plain" where nothing does; " d2,2" at the end where there is dilation, then " add" where
  // the result is added to the output.
  std::string to_string() const;
};

struct ConvKeyHash {
  std::size_t operator()(const ConvKey& key) const;
};

// Shapes of x, w and y as the interface has them (kernels.h), whichever of them is the output.
ConvKey make_conv_key(ConvDirection direction, DType dtype, const Shape& x, const Shape& w, const Shape& y,
                      const ConvParams& params, const ConvEpilogue& epilogue, std::int64_t alignment);

// The largest power of two up to 16 that divides all the addresses.
std::int64_t common_alignment(std::initializer_list<const void*> pointers);

// cuDNN names axes N, C, H, W (filters K, C, R, S) whatever the layout, which is said by strides.
struct CudnnLayout {
  std::array<std::int64_t, 4> extents;
  std::array<std::int64_t, 4> strides;
};
// For N, H, W, C in memory and for O, KH, KW, I alike.
CudnnLayout channels_last(const std::array<std::int64_t, 4>& shape);

// --- definitions ----------------------------------------------------------------------------------------------------

inline const char* name_of(ConvDirection direction) {
  switch (direction) {
    case ConvDirection::forward:
      return "forward";
    case ConvDirection::backward_data:
      return "backward_data";
    case ConvDirection::backward_weights:
      return "backward_weights";
  }
  return "?";
}

inline const char* name_of(Math math) {
  switch (math) {
    case Math::strict:
      return "strict";
    case Math::standard:
      return "standard";
    case Math::tf32:
      return "tf32";
  }
  return "?";
}

inline std::string epilogue_name(const ConvKey& key) {
  std::string name;
  const auto append = [&name](bool present, const char* part) {
    if (present) name += (name.empty() ? "" : "+") + std::string(part);
  };
  append(key.bias, "bias");
  append(key.residual, "residual");
  append(key.act == Activation::relu, "relu");
  append(key.act == Activation::relu6, "relu6");
  return name.empty() ? "plain" : name;
}

inline std::array<std::int64_t, 4> extents_of(const Shape& shape) {
  return {shape[0], shape[1], shape[2], shape[3]};
}

inline std::string ConvKey::to_string() const {
  std::string text = fmt::format("{} {} {} {} a{} x{} w{} y{} s{} p{} g{}", name_of(direction), retort::name_of(dtype),
                                 name_of(math), epilogue_name(*this), alignment, fmt::join(x, ","), fmt::join(w, ","),
                                 fmt::join(y, ","), fmt::join(stride, ","), fmt::join(padding, ","), groups);
  // Only where there is some: the other keys are what files of remembered choices have held all along.
  if (dilation != std::array<std::int64_t, 2>{1, 1}) text += fmt::format(" d{}", fmt::join(dilation, ","));
  if (accumulate) text += " add";
  return text;
}

inline std::size_t ConvKeyHash::operator()(const ConvKey& key) const {
  std::size_t hash = 0;
  const auto mix = [&hash](std::int64_t value) {
    hash = (hash ^ static_cast<std::size_t>(value)) * 0x9e3779b97f4a7c15u;  // Fibonacci hashing (Knuth, vol. 3, 6.4)
    hash ^= hash >> 29;
  };
  mix(static_cast<std::int64_t>(key.direction));
  mix(static_cast<std::int64_t>(key.dtype));
  mix(static_cast<std::int64_t>(key.math));
  mix((key.bias ? 1 : 0) + (key.residual ? 2 : 0) + (key.accumulate ? 4 : 0) + 8 * static_cast<std::int64_t>(key.act));
  mix(key.alignment);
  for (const auto value : key.x) mix(value);
  for (const auto value : key.w) mix(value);
  for (const auto value : key.y) mix(value);
  for (const auto value : key.stride) mix(value);
  for (const auto value : key.padding) mix(value);
  for (const auto value : key.dilation) mix(value);
  mix(key.groups);
  return hash;
}

inline ConvKey make_conv_key(ConvDirection direction, DType dtype, const Shape& x, const Shape& w, const Shape& y,
                             const ConvParams& params, const ConvEpilogue& epilogue, std::int64_t alignment) {
  ConvKey key;
  key.direction = direction;
  key.dtype = dtype;
  key.math = params.math;
  key.bias = static_cast<bool>(epilogue.bias);
  key.residual = static_cast<bool>(epilogue.residual);
  key.act = epilogue.act;
  key.alignment = alignment;
  key.x = extents_of(x);
  key.w = extents_of(w);
  key.y = extents_of(y);
  key.stride = {params.stride_h, params.stride_w};
  key.padding = {params.pad_h, params.pad_w};
  key.dilation = {params.dilation_h, params.dilation_w};
  key.groups = params.groups;
  return key;
}

inline std::int64_t common_alignment(std::initializer_list<const void*> pointers) {
  std::uintptr_t bits = 16;
  for (const void* pointer : pointers) bits |= reinterpret_cast<std::uintptr_t>(pointer);
  return static_cast<std::int64_t>(bits & (~bits + 1));
}

inline CudnnLayout channels_last(const std::array<std::int64_t, 4>& shape) {
  const auto [n, h, w, c] = shape;
  return {{n, c, h, w}, {h * w * c, 1, w * c, c}};
}

}  // namespace retort::kernels
