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

// out [columns] += row [rows] matrix [rows, columns]; rows of the matrix are `pitch` elements apart.
template <typename T>
void add_product(const T* row, std::int64_t rows, const T* matrix, std::int64_t pitch, T* out, std::int64_t columns,
                 std::int64_t terms) {
  constexpr std::int64_t kWidth = 64 / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t first = 0; first < rows; first += terms) {
    const std::int64_t end = std::min(rows, first + terms);
    std::int64_t column = 0;
    for (; column + kWidth <= columns; column += kWidth) {
      std::array<T, kWidth> sum{};
      for (std::int64_t r = first; r < end; ++r) {
        const T* line = matrix + r * pitch + column;
        for (std::int64_t i = 0; i < kWidth; ++i) sum[static_cast<std::size_t>(i)] += row[r] * line[i];
      }
      for (std::int64_t i = 0; i < kWidth; ++i) out[column + i] += sum[static_cast<std::size_t>(i)];
    }
    for (; column < columns; ++column) {
      T sum{};
      for (std::int64_t r = first; r < end; ++r) sum += row[r] * matrix[r * pitch + column];
      out[column] += sum;
    }
  }
}

// Calls visit(pixel, group, taps) for every result pixel and group; taps(f) calls f(x offset, patch offset) for every
// tap of the filter that meets the image, each a run of inputs() channels.
template <typename Visit>
void for_each_patch(const ConvolutionShape& s, Visit visit) {
  for (std::int64_t pixel = 0; pixel < s.n * s.oh * s.ow; ++pixel) {
    const std::int64_t image = pixel / (s.oh * s.ow), top = pixel / s.ow % s.oh * s.stride[0] - s.pre[0],
                       left = pixel % s.ow * s.stride[1] - s.pre[1];
    for (std::int64_t group = 0; group < s.groups; ++group) {
      visit(pixel, group, [&](auto f) {
        for (std::int64_t i = 0; i < s.kh; ++i) {
          const std::int64_t h = top + i * s.dilation[0];
          if (h < 0 || h >= s.h) continue;
          for (std::int64_t j = 0; j < s.kw; ++j) {
            const std::int64_t w = left + j * s.dilation[1];
            if (w < 0 || w >= s.w) continue;
            f(((image * s.h + h) * s.w + w) * s.c + group * s.inputs(), (i * s.kw + j) * s.inputs());
          }
        }
      });
    }
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
  std::vector<T> patch(static_cast<std::size_t>(s.patch()));
  for_each_patch(s, [&](std::int64_t pixel, std::int64_t group, auto taps) {
    std::fill(patch.begin(), patch.end(), T{});
    taps([&](std::int64_t from, std::int64_t to) { std::copy_n(x + from, s.inputs(), patch.data() + to); });
    add_product(patch.data(), s.patch(), turned.data() + group * s.patch() * s.outputs(), s.outputs(),
                y + pixel * s.o + group * s.outputs(), s.outputs(), terms);
  });
}

template <typename T>
void convolve_backward_data(const ConvolutionShape& s, const T* dy, const T* w, T* dx, std::int64_t terms) {
  std::fill_n(dx, s.n * s.h * s.w * s.c, T{});
  std::vector<T> patch(static_cast<std::size_t>(s.patch()));
  for_each_patch(s, [&](std::int64_t pixel, std::int64_t group, auto taps) {
    std::fill(patch.begin(), patch.end(), T{});
    add_product(dy + pixel * s.o + group * s.outputs(), s.outputs(), w + group * s.outputs() * s.patch(), s.patch(),
                patch.data(), s.patch(), terms);
    taps([&](std::int64_t to, std::int64_t from) {
      for (std::int64_t c = 0; c < s.inputs(); ++c) dx[to + c] += patch[static_cast<std::size_t>(from + c)];
    });
  });
}

template <typename T>
void convolve_backward_weights(const ConvolutionShape& s, const T* x, const T* dy, T* dw, std::int64_t terms) {
  std::fill_n(dw, s.o * s.patch(), T{});
  // `terms` pixels at a time: their patches [group, pixel, patch] and gradients [o, pixel].
  const std::int64_t pixels = s.n * s.oh * s.ow;
  std::vector<T> patches(static_cast<std::size_t>(s.groups * terms * s.patch()));
  std::vector<T> gradients(static_cast<std::size_t>(s.o * terms));
  for_each_patch(s, [&](std::int64_t pixel, std::int64_t group, auto taps) {
    const std::int64_t at = pixel % terms;
    T* const patch = patches.data() + (group * terms + at) * s.patch();
    std::fill_n(patch, s.patch(), T{});
    taps([&](std::int64_t from, std::int64_t to) { std::copy_n(x + from, s.inputs(), patch + to); });
    for (std::int64_t o = group * s.outputs(); o < (group + 1) * s.outputs(); ++o) {
      gradients[static_cast<std::size_t>(o * terms + at)] = dy[pixel * s.o + o];
    }
    if (at + 1 < terms && pixel + 1 < pixels) return;
    for (std::int64_t o = group * s.outputs(); o < (group + 1) * s.outputs(); ++o) {
      add_product(gradients.data() + o * terms, at + 1, patches.data() + group * terms * s.patch(), s.patch(),
                  dw + o * s.patch(), s.patch(), terms);
    }
  });
}

}  // namespace retort::standin
