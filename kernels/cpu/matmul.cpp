#include <algorithm>
#include <array>
#include <cassert>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/round_trip.h"
#include "kernels/cpu/row_product.h"

namespace retort::kernels {
namespace {

struct MatmulShape {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b;
};

void matmul_f32(const MatmulShape& s, const float* a, const float* b, const float* bias, float* y) {
  if (bias != nullptr) {
    for (std::int64_t row = 0; row < s.m; ++row) std::copy(bias, bias + s.n, y + row * s.n);
  }
  if (s.k == 0) {
    if (bias == nullptr) std::fill(y, y + s.m * s.n, 0.0f);
    return;
  }
  const dnnl_status_t status =
      dnnl_sgemm(s.transpose_a ? 'T' : 'N', s.transpose_b ? 'T' : 'N', s.m, s.n, s.k, 1.0f, a,
                 s.transpose_a ? s.m : s.k, b, s.transpose_b ? s.k : s.n, bias != nullptr ? 1.0f : 0.0f, y, s.n);
  check(status == dnnl_success, "matmul: oneDNN {}: dnnl_sgemm of [{}, {}] by [{}, {}] failed (status {})",
        onednn::version(), s.m, s.k, s.k, s.n, static_cast<int>(status));
}

void matmul_f64(const MatmulShape& s, const double* a, const double* b, const double* bias, double* y,
                MemoryPool& pool) {
  using Product = RowProduct<double>;
  constexpr std::int64_t kRows = Product::kRows, kColumns = Product::kColumns;
  const std::int64_t panels = (s.n + kColumns - 1) / kColumns, tiles = (s.m + kRows - 1) / kRows;
  const Workspace packed_b(pool, static_cast<std::size_t>(panels * kColumns * s.k) * sizeof(double));
  const Workspace packed_a(pool, static_cast<std::size_t>(tiles * kRows * s.k) * sizeof(double));
#pragma omp parallel
  {
#pragma omp for schedule(static) nowait
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      double* to = packed_b.as<double>() + panel * kColumns * s.k;
      for (std::int64_t k = 0; k < s.k; ++k) {
        for (std::int64_t n = panel * kColumns; n < (panel + 1) * kColumns; ++n) {
          *to++ = n >= s.n ? 0.0 : s.transpose_b ? b[n * s.k + k] : b[k * s.n + n];
        }
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t m = 0; m < tiles * kRows; ++m) {
      double* const to = packed_a.as<double>() + m * s.k;
      for (std::int64_t k = 0; k < s.k; ++k) to[k] = m >= s.m ? 0.0 : s.transpose_a ? a[k * s.m + m] : a[m * s.k + k];
    }
    Product product;
#pragma omp for schedule(static) collapse(2)
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      for (std::int64_t panel = 0; panel < panels; ++panel) {
        std::array<const double*, kRows> rows;
        for (std::int64_t m = 0; m < kRows; ++m) {
          rows[static_cast<std::size_t>(m)] = packed_a.as<double>() + (tile * kRows + m) * s.k;
        }
        product.multiply(rows.data(), 1, s.k, packed_b.as<double>() + panel * kColumns * s.k);
        const std::int64_t n0 = panel * kColumns, width = std::min(kColumns, s.n - n0);
        for (std::int64_t m = 0; m < std::min(kRows, s.m - tile * kRows); ++m) {
          double* const to = y + (tile * kRows + m) * s.n + n0;
          const double* const from = product.row(static_cast<int>(m));
          for (std::int64_t n = 0; n < width; ++n) to[n] = from[n] + (bias != nullptr ? bias[n0 + n] : 0.0);
        }
      }
    }
  }
}

}  // namespace

void CpuBackend::matmul(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, Math, View y,
                        Stream) {
  const MatmulShape s{y.shape[0], y.shape[1], a.shape[transpose_a ? 0 : 1], transpose_a, transpose_b};
  assert(a.shape[transpose_a ? 1 : 0] == s.m);
  assert(b.shape[transpose_b ? 0 : 1] == s.n && b.shape[transpose_b ? 1 : 0] == s.k);
  if (y.numel() == 0) return;
  if (y.dtype == DType::f64) {
    matmul_f64(s, a.as<double>(), b.as<double>(), bias.as<double>(), y.as<double>(), *pool_);
    return;
  }
  const AsF32 af(a, *pool_), bf(b, *pool_);
  ToF32 yf(y, *pool_);
  matmul_f32(s, af.data(), bf.data(), bias.as<float>(), yf.data());
  yf.finish();
}

}  // namespace retort::kernels
