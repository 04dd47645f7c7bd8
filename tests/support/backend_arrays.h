// Calling a backend's kernels straight from vectors.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/kernels.h"
#include "tests/support/reference.h"

namespace retort::test {

using reference::uniform;

inline kernels::Backend& cpu() {
  return kernels::backend({});
}

// The distance from 1 to the next number: twice the relative error of one rounding.
inline double rounding(DType type) {
  return type == DType::f64 ? 0x1p-52 : type == DType::f32 ? 0x1p-23 : 0x1p-7;
}

// A host array of some type that passes as a view. Fresh arrays are filled with 0xff bytes: NaN in every floating
// type, so that an element which a kernel leaves unwritten shows. Guard bytes after the end show overruns.
struct Data {
  static constexpr std::size_t kGuard = 64;

  DType type;
  Shape shape;
  std::vector<std::uint8_t> bytes;

  Data(DType t, const Shape& s)
      : type(t), shape(s), bytes(static_cast<std::size_t>(s.numel()) * size_of(t) + kGuard, 0xff) {}
  Data(DType t, const reference::Array& values) : Data(t, values.shape) {
    for (std::int64_t i = 0; i < shape.numel(); ++i) set(i, values[i]);
  }
  ~Data() {
    for (std::size_t i = bytes.size() - kGuard; i < bytes.size(); ++i) EXPECT_EQ(bytes[i], 0xff) << "overrun";
  }
  Data(const Data&) = default;
  Data& operator=(const Data&) = default;

  operator View() { return {bytes.data(), type, shape}; }
  operator ConstView() const { return {bytes.data(), type, shape}; }
  operator ConstView() { return {bytes.data(), type, shape}; }

  template <typename T>
  void store(std::int64_t i, T value) {
    std::memcpy(bytes.data() + static_cast<std::size_t>(i) * sizeof(T), &value, sizeof(T));
  }
  template <typename T>
  T fetch(std::int64_t i) const {
    T value;
    std::memcpy(&value, bytes.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    return value;
  }
  void set(std::int64_t i, double v) {
    switch (type) {
      case DType::f64:
        return store(i, v);
      case DType::f32:
        return store(i, static_cast<float>(v));
      case DType::bf16:
        return store(i, bf16(static_cast<float>(v)));
      case DType::i32:
        return store(i, static_cast<std::int32_t>(v));
      case DType::u8:
        return store(i, static_cast<std::uint8_t>(v));
    }
  }
  double get(std::int64_t i) const {
    switch (type) {
      case DType::f64:
        return fetch<double>(i);
      case DType::f32:
        return static_cast<double>(fetch<float>(i));
      case DType::bf16:
        return static_cast<double>(static_cast<float>(fetch<bf16>(i)));
      case DType::i32:
        return fetch<std::int32_t>(i);
      case DType::u8:
        return fetch<std::uint8_t>(i);
    }
    return 0;
  }
  reference::Array array() const {
    reference::Array values(shape);
    for (std::int64_t i = 0; i < shape.numel(); ++i) values[i] = get(i);
    return values;
  }
};

inline Data indices(const std::vector<std::int32_t>& values) {
  Data data(DType::i32, Shape{static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) data.store(static_cast<std::int64_t>(i), values[i]);
  return data;
}

// Every element within tolerance * max(|expected|, the root mean square of all expected values, scale). `scale` is the
// size of the terms where the result is what their cancellation left.
inline void expect_close(const Data& actual, const reference::Array& expected, double tolerance, double scale = 0) {
  ASSERT_EQ(actual.shape.numel(), expected.numel());
  double squares = 0;
  for (double v : expected.values) squares += v * v;
  const double typical = std::sqrt(squares / std::max<double>(1, static_cast<double>(expected.numel())));
  for (std::int64_t i = 0; i < expected.numel(); ++i) {
    const double v = actual.get(i);
    if (v == expected[i]) continue;
    ASSERT_LE(std::abs(v - expected[i]), tolerance * std::max({std::abs(expected[i]), typical, scale}))
        << "element " << i << " of " << name_of(actual.type) << " " << actual.shape.to_string() << ": " << v
        << ", expected " << expected[i];
  }
}

}  // namespace retort::test
