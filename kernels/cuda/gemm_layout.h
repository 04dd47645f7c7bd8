// Row-major products for a column-major library. A row-major [r, c] matrix is, to cuBLAS, its transpose with leading
// dimension c. So y = op(a) op(b) is asked for as y' = op(b)' op(a)': b first, and every "transposed" as it was.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace retort::kernels {

// y' [m, n] = first [m, k] second [k, n]; all column-major, "transposed" meaning that the stored matrix is.
struct ColumnMajorProduct {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_first = false, transpose_second = false;  // first is b, second is a
  std::int64_t ld_first = 0, ld_second = 0, ld_result = 0;

  std::int64_t first_rows() const { return transpose_first ? k : m; }
  std::int64_t first_columns() const { return transpose_first ? m : k; }
  std::int64_t second_rows() const { return transpose_second ? n : k; }
  std::int64_t second_columns() const { return transpose_second ? k : n; }
  bool operator==(const ColumnMajorProduct&) const = default;
};

inline ColumnMajorProduct column_major_product(const Shape& a, bool transpose_a, const Shape& b, bool transpose_b,
                                               const Shape& y) {
  ColumnMajorProduct p;
  p.m = y[1];
  p.n = y[0];
  p.k = transpose_a ? a[0] : a[1];
  p.transpose_first = transpose_b;
  p.transpose_second = transpose_a;
  p.ld_first = b[1];
  p.ld_second = a[1];
  p.ld_result = y[1];
  return p;
}

}  // namespace retort::kernels
