// Neuron selectivity transfer. With the student's and the teacher's columns stacked, u = [s; t], weights
// w = [1 / Cs; -1 / Ct] and products g_ij = u_i u_j, a sample's loss is sum_ij w_i w_j g_ij² and its gradient
// 4 w_i sum_j w_j g_ij u_j: two matrix products, a few rows at a time, so that g never leaves the cache.
#include <algorithm>
#include <cassert>
#include <vector>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_product.h"
#include "kernels/cpu/transpose.h"

namespace retort::kernels {
namespace cpu {
namespace {

template <typename A>
class SelectivityOfSample {
 public:
  using Product = RowProduct<A>;
  static constexpr std::int64_t kColumns = Product::kColumns, kRows = Product::kRows;
  static_assert(kColumns <= kTransposeBlock);

  SelectivityOfSample(std::int64_t student_channels, std::int64_t teacher_channels, std::int64_t features,
                      bool with_gradient)
      : cs_(student_channels),
        ct_(teacher_channels),
        features_(features),
        student_panels_(ceil_div(cs_)),
        panels_(student_panels_ + ceil_div(ct_)),
        feature_panels_(with_gradient ? ceil_div(features) : 0),
        transposed_(static_cast<std::size_t>(panels_ * kColumns * features)),
        straight_(static_cast<std::size_t>(feature_panels_ * panels_ * kColumns * kColumns)),
        weighted_(static_cast<std::size_t>(kRows * panels_ * kColumns)) {}

  // The loss; the gradient, times `factor`, where asked for.
  double operator()(const A* s, const A* t, A* gradient, double factor) {
    pack(s, cs_, 0);
    pack(t, ct_, student_panels_);
    const double of_s = 1 / static_cast<double>(cs_), of_t = -1 / static_cast<double>(ct_);
    double loss = 0;
    for (std::int64_t first = 0; first < cs_; first += kRows) {
      const std::int64_t rows = std::min(kRows, cs_ - first);
      loss += multiply_rows(s + first * features_, rows, 0, student_panels_, of_s * of_s);
      loss += 2 * multiply_rows(s + first * features_, rows, student_panels_, panels_, of_s * of_t);
      if (gradient != nullptr) multiply_back(rows, 4 * factor, gradient + first * features_);
    }
    for (std::int64_t first = 0; first < ct_; first += kRows) {
      const std::int64_t rows = std::min(kRows, ct_ - first);
      loss += multiply_rows(t + first * features_, rows, student_panels_, panels_, of_t * of_t);
    }
    return loss;
  }

 private:
  static std::int64_t ceil_div(std::int64_t count) { return (count + kColumns - 1) / kColumns; }

  // Rows u into the panels from `panel` on; what is left of the last one stays zero.
  void pack(const A* u, std::int64_t rows, std::int64_t panel) {
    for (std::int64_t j = 0; j < rows; j += kColumns, ++panel) {
      const std::int64_t here = std::min(kColumns, rows - j);
      for (std::int64_t d = 0; d < features_; d += kTransposeBlock) {
        transpose_block(u + j * features_ + d, features_, transposed_.data() + (panel * features_ + d) * kColumns,
                        kColumns, here, std::min(kTransposeBlock, features_ - d));
      }
      for (std::int64_t f = 0; f < feature_panels_; ++f) {
        A* const straight = straight_.data() + (f * panels_ + panel) * kColumns * kColumns;
        const std::int64_t width = std::min(kColumns, features_ - f * kColumns);
        for (std::int64_t m = 0; m < here; ++m) {
          std::copy_n(u + (j + m) * features_ + f * kColumns, width, straight + m * kColumns);
        }
      }
    }
  }

  // weight * sum of g² over these rows and the panels first .. last - 1; weight * g stays in weighted_.
  double multiply_rows(const A* u, std::int64_t rows, std::int64_t first, std::int64_t last, double weight) {
    const A* pointers[kRows];
    for (std::int64_t m = 0; m < kRows; ++m) pointers[m] = u + std::min(m, rows - 1) * features_;
    const A scale = static_cast<A>(weight);
    double total = 0;
    for (std::int64_t p = first; p < last; ++p) {
      product_.multiply(pointers, 1, features_, transposed_.data() + p * kColumns * features_);
      for (int m = 0; m < rows; ++m) {
        const A* const g = product_.row(m);
        A* const out = weighted_.data() + m * panels_ * kColumns + p * kColumns;
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t n = 0; n < kColumns; ++n) {
          sum += g[n] * g[n];
          out[n] = scale * g[n];
        }
        total += static_cast<double>(sum);
      }
    }
    return weight * total;
  }

  void multiply_back(std::int64_t rows, double factor, A* gradient) {
    const A* pointers[kRows];
    for (std::int64_t m = 0; m < kRows; ++m) {
      pointers[m] = weighted_.data() + std::min(m, rows - 1) * panels_ * kColumns;
    }
    const A scale = static_cast<A>(factor);
    for (std::int64_t f = 0; f < feature_panels_; ++f) {
      product_.multiply(pointers, 1, panels_ * kColumns, straight_.data() + f * panels_ * kColumns * kColumns);
      const std::int64_t width = std::min(kColumns, features_ - f * kColumns);
      for (int m = 0; m < rows; ++m) {
        const A* const from = product_.row(m);
        A* const to = gradient + m * features_ + f * kColumns;
        for (std::int64_t d = 0; d < width; ++d) to[d] = scale * from[d];
      }
    }
  }

  std::int64_t cs_, ct_, features_, student_panels_, panels_, feature_panels_;
  std::vector<A> transposed_;  // [panel][feature][kColumns]
  std::vector<A> straight_;    // [feature panel][panels * kColumns][kColumns]
  std::vector<A> weighted_;    // [kRows][panels * kColumns]
  Product product_;
};

template <typename A>
void neuron_selectivity(ConstView s, ConstView t, View loss, View gradient) {
  const std::int64_t samples = s.shape[0], cs = s.shape[1], ct = t.shape[1], features = s.shape[2];
  const double share = 1 / static_cast<double>(samples);
  std::vector<double> losses(static_cast<std::size_t>(samples));
  parallel_for(samples, (cs + ct) * (cs + ct) * features, [&](std::int64_t begin, std::int64_t end) {
    SelectivityOfSample<A> sample(cs, ct, features, static_cast<bool>(gradient));
    for (std::int64_t n = begin; n < end; ++n) {
      A* const to = gradient ? gradient.as<A>() + n * cs * features : nullptr;
      losses[static_cast<std::size_t>(n)] =
          sample(s.as<A>() + n * cs * features, t.as<A>() + n * ct * features, to, share);
    }
  });
  double total = 0;
  for (const double value : losses) total += value;
  loss.as<A>()[0] = static_cast<A>(share * total);
}

}  // namespace
}  // namespace cpu

void CpuBackend::neuron_selectivity(ConstView s, ConstView t, View loss, View gradient, Stream) {
  assert(s.dtype == t.dtype && s.shape[0] == t.shape[0] && s.shape[2] == t.shape[2]);
  if (s.dtype == DType::f64) {
    cpu::neuron_selectivity<double>(s, t, loss, gradient);
  } else {
    cpu::neuron_selectivity<float>(s, t, loss, gradient);
  }
}

}  // namespace retort::kernels
