// Convolutions by the definition, in one order of additions: sums of `terms` products at a time, and those sums one
// after the other. Channels last and dense: x [n, h, w, c], w [o, kh, kw, c / groups], y [n, oh, ow, o].
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace retort::standin {

struct ConvolutionShape {
  std::int64_t n, h, w, c, o, kh, kw, oh, ow, groups;
  std::array<std::int64_t, 2> stride, pre, dilation;

  std::int64_t inputs() const { return c / groups; }
  std::int64_t outputs() const { return o / groups; }
  std::int64_t patch() const { return kh * kw * inputs(); }
};

// out [count, columns] += rows [count, terms of a sum] matrix [terms of a sum, columns], pitches in elements.
template <typename T>
struct Product {
  const T* rows;
  std::int64_t count, rows_pitch;
  const T* matrix;
  std::int64_t sum, matrix_pitch;
  T* out;
  std::int64_t columns, out_pitch;
};

template <typename T>
void add_product(const Product<T>& p, std::int64_t terms) {
  constexpr std::int64_t kWidth = 64 / static_cast<std::int64_t>(sizeof(T));
  std::int64_t column = 0;
  for (; column + kWidth <= p.columns; column += kWidth) {
    for (std::int64_t first = 0; first < p.sum; first += terms) {  // what is read of the matrix stays in the cache
      const std::int64_t end = std::min(p.sum, first + terms);
      for (std::int64_t i = 0; i < p.count; ++i) {
        const T* const row = p.rows + i * p.rows_pitch;
        std::array<T, kWidth> sum{};
        for (std::int64_t k = first; k < end; ++k) {
          const T* const line = p.matrix + k * p.matrix_pitch + column;
          for (std::int64_t j = 0; j < kWidth; ++j) sum[static_cast<std::size_t>(j)] += row[k] * line[j];
        }
        T* const out = p.out + i * p.out_pitch + column;
        for (std::int64_t j = 0; j < kWidth; ++j) out[j] += sum[static_cast<std::size_t>(j)];
      }
    }
  }
  for (; column < p.columns; ++column) {
    for (std::int64_t i = 0; i < p.count; ++i) {
      const T* const row = p.rows + i * p.rows_pitch;
      for (std::int64_t first = 0; first < p.sum; first += terms) {
        T sum{};
        for (std::int64_t k = first; k < std::min(p.sum, first + terms); ++k) {
          sum += row[k] * p.matrix[k * p.matrix_pitch + column];
        }
        p.out[i * p.out_pitch + column] += sum;
      }
    }
  }
}

// Calls visit(x offset, patch offset) for every tap of the filter that meets the image at a pixel of the result; each is
// a run of inputs() channels.
template <typename Visit>
void for_each_tap(const ConvolutionShape& s, std::int64_t pixel, std::int64_t group, Visit visit) {
  const std::int64_t image = pixel / (s.oh * s.ow), top = pixel / s.ow % s.oh * s.stride[0] - s.pre[0],
                     left = pixel % s.ow * s.stride[1] - s.pre[1];
  for (std::int64_t i = 0; i < s.kh; ++i) {
    const std::int64_t h = top + i * s.dilation[0];
    if (h < 0 || h >= s.h) continue;
    for (std::int64_t j = 0; j < s.kw; ++j) {
      const std::int64_t w = left + j * s.dilation[1];
      if (w < 0 || w >= s.w) continue;
      visit(((image * s.h + h) * s.w + w) * s.c + group * s.inputs(), (i * s.kw + j) * s.inputs());
    }
  }
}

// Calls visit(first pixel, count, group) for `batch` pixels of the result at a time.
template <typename Visit>
void for_each_batch(const ConvolutionShape& s, std::int64_t batch, Visit visit) {
  for (std::int64_t first = 0; first < s.n * s.oh * s.ow; first += batch) {
    for (std::int64_t group = 0; group < s.groups; ++group) {
      visit(first, std::min(batch, s.n * s.oh * s.ow - first), group);
    }
  }
}

constexpr std::int64_t kConvolutionBatch = 64;

// What the filters see of x at `count` pixels: [count, patch], 0 outside the image.
template <typename T>
void gather_patches(const ConvolutionShape& s, const T* x, std::int64_t first, std::int64_t count, std::int64_t group,
                    std::vector<T>& patches) {
  patches.assign(static_cast<std::size_t>(count * s.patch()), T{});
  for (std::int64_t i = 0; i < count; ++i) {
    T* const patch = patches.data() + i * s.patch();
    for_each_tap(s, first + i, group, [&](auto from, auto to) { std::copy_n(x + from, s.inputs(), patch + to); });
  }
}

template <typename T>
void convolve(const ConvolutionShape& s, const T* x, const T* w, T* y, std::int64_t terms) {
  std::vector<T> turned(static_cast<std::size_t>(s.o * s.patch()));  // [group, patch, outputs]
  for (std::int64_t o = 0; o < s.o; ++o) {
    for (std::int64_t k = 0; k < s.patch(); ++k) {
      const std::int64_t group = o / s.outputs();
      turned[static_cast<std::size_t>((group * s.patch() + k) * s.outputs() + o % s.outputs())] = w[o * s.patch() + k];
    }
  }
  std::fill_n(y, s.n * s.oh * s.ow * s.o, T{});
  std::vector<T> patches;
  for_each_batch(s, kConvolutionBatch, [&](std::int64_t first, std::int64_t count, std::int64_t group) {
    gather_patches(s, x, first, count, group, patches);
    add_product<T>({patches.data(), count, s.patch(), turned.data() + group * s.patch() * s.outputs(), s.patch(),
                    s.outputs(), y + first * s.o + group * s.outputs(), s.outputs(), s.o},
                   terms);
  });
}

template <typename T>
void convolve_backward_data(const ConvolutionShape& s, const T* dy, const T* w, T* dx, std::int64_t terms) {
  std::fill_n(dx, s.n * s.h * s.w * s.c, T{});
  std::vector<T> patches;
  for_each_batch(s, kConvolutionBatch, [&](std::int64_t first, std::int64_t count, std::int64_t group) {
    patches.assign(static_cast<std::size_t>(count * s.patch()), T{});
    add_product<T>({dy + first * s.o + group * s.outputs(), count, s.o, w + group * s.outputs() * s.patch(),
                    s.outputs(), s.patch(), patches.data(), s.patch(), s.patch()},
                   terms);
    for (std::int64_t i = 0; i < count; ++i) {
      const T* const patch = patches.data() + i * s.patch();
      for_each_tap(s, first + i, group, [&](auto to, auto from) {
        for (std::int64_t c = 0; c < s.inputs(); ++c) dx[to + c] += patch[from + c];
      });
    }
  });
}

template <typename T>
void convolve_backward_weights(const ConvolutionShape& s, const T* x, const T* dy, T* dw, std::int64_t terms) {
  std::fill_n(dw, s.o * s.patch(), T{});
  std::vector<T> patches, turned;  // dy as [outputs, pixel]
  for_each_batch(s, terms, [&](std::int64_t first, std::int64_t count, std::int64_t group) {
    gather_patches(s, x, first, count, group, patches);
    turned.resize(static_cast<std::size_t>(s.outputs() * count));
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t o = 0; o < s.outputs(); ++o) {
        turned[static_cast<std::size_t>(o * count + i)] = dy[(first + i) * s.o + group * s.outputs() + o];
      }
    }
    add_product<T>({turned.data(), s.outputs(), count, patches.data(), count, s.patch(),
                    dw + group * s.outputs() * s.patch(), s.patch(), s.patch()},
                   terms);
  });
}

}  // namespace retort::standin
