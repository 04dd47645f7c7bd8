// Plain views over memory: what the kernels see of a tensor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/bf16.h"

namespace retort {

enum class DType : std::uint8_t { f64, f32, bf16, i32, u8 };

// Bytes of one element.
constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 8;
    case DType::f32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::i32:
      return 4;
    case DType::u8:
      return 1;
  }
  return 0;
}
constexpr bool is_floating(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16;
}

// The type in which statistics, losses and sums over a tensor of type `dtype` are kept.
constexpr DType accumulation_type(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
}
const char* name_of(DType dtype);  // "f32"

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <typename T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

// Row-major extents, rank 0 (a scalar) to 4. Images and feature maps are N, H, W, C.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);  // throws Error above kMaxRank or below 0

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return extents_[static_cast<std::size_t>(axis)]; }
  std::int64_t& operator[](int axis) { return extents_[static_cast<std::size_t>(axis)]; }
  std::int64_t numel() const;
  // All axes but the last as one: the row count of the shape seen as a matrix [rows, last].
  std::int64_t rows() const;
  std::int64_t last() const { return rank_ == 0 ? 1 : extents_[static_cast<std::size_t>(rank_ - 1)]; }
  bool operator==(const Shape& other) const;
  std::string to_string() const;  // "[128, 32, 32, 3]"

 private:
  int rank_ = 0;
  std::array<std::int64_t, kMaxRank> extents_{};
};

// A dense, contiguous, row-major region on some device. An optional argument of a kernel is passed as an
// empty view (data == nullptr).
struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  explicit operator bool() const { return data != nullptr; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

struct ConstView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  ConstView() = default;
  ConstView(const void* d, DType t, const Shape& s) : data(d), dtype(t), shape(s) {}
  ConstView(const View& v) : data(v.data), dtype(v.dtype), shape(v.shape) {}  // NOLINT: a view is a const view

  explicit operator bool() const { return data != nullptr; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype); }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

enum class DeviceType : std::uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  bool operator==(const Device&) const = default;
  bool is_cpu() const { return type == DeviceType::cpu; }
  bool is_cuda() const { return type == DeviceType::cuda; }
  std::string to_string() const;  // "cpu", "cuda:0"
};

}  // namespace retort
