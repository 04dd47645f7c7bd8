#include "kernels/types.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/error.h"

namespace retort {

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  check(rank_ <= kMaxRank, "shape: rank {} is above the maximum of {}", rank_, kMaxRank);
  std::copy(extents.begin(), extents.end(), extents_.begin());
  for (std::int64_t extent : extents) check(extent >= 0, "shape: negative extent in {}", to_string());
}

std::int64_t Shape::numel() const {
  std::int64_t product = 1;
  for (int axis = 0; axis < rank_; ++axis) product *= (*this)[axis];
  return product;
}

std::int64_t Shape::rows() const {
  std::int64_t product = 1;
  for (int axis = 0; axis + 1 < rank_; ++axis) product *= (*this)[axis];
  return product;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(extents_.begin(), extents_.begin() + rank_, other.extents_.begin());
}

std::string Shape::to_string() const {
  return fmt::format("[{}]", fmt::join(extents_.begin(), extents_.begin() + rank_, ", "));
}

std::string Device::to_string() const {
  return is_cpu() ? "cpu" : fmt::format("cuda:{}", index);
}

}  // namespace retort
