// Convolution and matrix product by the definition, in f64, written for clarity alone: what the backends are compared
// with. x [n, h, w, c], w [o, kh, kw, c / groups], y [n, oh, ow, o].
#pragma once

#include <cstdint>
#include <vector>

namespace retort::reference {

struct Conv {
  std::int64_t n, h, w, c, o, kh, kw;
  std::int64_t stride = 1, pad = 0, groups = 1;
  std::int64_t dilation_h = 1, dilation_w = 1;

  std::int64_t oh() const { return (h + 2 * pad - dilation_h * (kh - 1) - 1) / stride + 1; }
  std::int64_t ow() const { return (w + 2 * pad - dilation_w * (kw - 1) - 1) / stride + 1; }
  std::int64_t x_size() const { return n * h * w * c; }
  std::int64_t w_size() const { return o * kh * kw * (c / groups); }
  std::int64_t y_size() const { return n * oh() * ow() * o; }
};

// Calls visit(x index, w index, y index) for every product of the convolution.
template <typename Visit>
void for_each_product(const Conv& s, Visit visit) {
  const std::int64_t inputs = s.c / s.groups, outputs = s.o / s.groups;
  for (std::int64_t n = 0; n < s.n; ++n) {
    for (std::int64_t row = 0; row < s.oh(); ++row) {
      for (std::int64_t column = 0; column < s.ow(); ++column) {
        for (std::int64_t o = 0; o < s.o; ++o) {
          const std::int64_t y_at = ((n * s.oh() + row) * s.ow() + column) * s.o + o;
          for (std::int64_t i = 0; i < s.kh; ++i) {
            for (std::int64_t j = 0; j < s.kw; ++j) {
              const std::int64_t h = row * s.stride - s.pad + i * s.dilation_h;
              const std::int64_t w = column * s.stride - s.pad + j * s.dilation_w;
              if (h < 0 || h >= s.h || w < 0 || w >= s.w) continue;
              const std::int64_t x_at = ((n * s.h + h) * s.w + w) * s.c + o / outputs * inputs;
              const std::int64_t w_at = ((o * s.kh + i) * s.kw + j) * inputs;
              for (std::int64_t c = 0; c < inputs; ++c) visit(x_at + c, w_at + c, y_at);
            }
          }
        }
      }
    }
  }
}

using Values = std::vector<double>;

inline Values conv_forward(const Conv& s, const Values& x, const Values& w, const Values& bias) {
  Values y(static_cast<std::size_t>(s.y_size()), 0.0);
  for_each_product(s, [&](auto i, auto j, auto k) {
    y[static_cast<std::size_t>(k)] += x[static_cast<std::size_t>(i)] * w[static_cast<std::size_t>(j)];
  });
  for (std::size_t k = 0; k < y.size() && !bias.empty(); ++k) y[k] += bias[k % bias.size()];
  return y;
}

inline Values conv_backward_data(const Conv& s, const Values& dy, const Values& w) {
  Values dx(static_cast<std::size_t>(s.x_size()), 0.0);
  for_each_product(s, [&](auto i, auto j, auto k) {
    dx[static_cast<std::size_t>(i)] += dy[static_cast<std::size_t>(k)] * w[static_cast<std::size_t>(j)];
  });
  return dx;
}

inline Values conv_backward_weights(const Conv& s, const Values& x, const Values& dy) {
  Values dw(static_cast<std::size_t>(s.w_size()), 0.0);
  for_each_product(s, [&](auto i, auto j, auto k) {
    dw[static_cast<std::size_t>(j)] += x[static_cast<std::size_t>(i)] * dy[static_cast<std::size_t>(k)];
  });
  return dw;
}

}  // namespace retort::reference
