// Convolution in f64, for gradient checks and exact comparisons: direct, any geometry, fixed order of summation.
#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/convolution.h"
#include "kernels/cpu/row_product.h"

namespace retort::kernels {
namespace {

using Product = RowProduct<double>;
constexpr std::int64_t kRows = Product::kRows;
constexpr std::int64_t kColumns = Product::kColumns;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Panels [output / kColumns][tap][input][kColumns], zero beyond `outputs`, from get(output, tap, input).
template <typename Get>
void pack(std::int64_t outputs, std::int64_t taps, std::int64_t inputs, double* packed, Get get) {
  for (std::int64_t panel = 0; panel < ceil_div(outputs, kColumns); ++panel) {
    for (std::int64_t t = 0; t < taps; ++t) {
      for (std::int64_t i = 0; i < inputs; ++i) {
        for (std::int64_t lane = 0; lane < kColumns; ++lane) {
          const std::int64_t output = panel * kColumns + lane;
          *packed++ = output < outputs ? get(output, t, i) : 0.0;
        }
      }
    }
  }
}

// out[at + lane] = act(sums[lane] + bias[channel + lane] + residual[at + lane])
void finish(const double* sums, std::int64_t lanes, std::int64_t at, std::int64_t channel, const Epilogue<double>& e,
            double* out) {
  cpu::dispatch_activation(e.act, [&](auto kind) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      double value = sums[lane] + (e.bias != nullptr ? e.bias[channel + lane] : 0.0);
      if (e.residual != nullptr) value += e.residual[at + lane];
      out[at + lane] = cpu::activate<decltype(kind)::value>(value);
    }
  });
}

// out[p, out_offset + j] for all pixels p and j < outputs, by row products: source(p, tap) gives the input row of a
// tap or null for padding. The epilogue's pointers begin where `out` does. Serves the forward pass and the gradient of
// the input alike.
template <typename Source>
void convolve(std::int64_t pixels, std::int64_t taps, std::int64_t inputs, std::int64_t outputs, const double* packed,
              const Epilogue<double>& epilogue, double* out, std::int64_t out_pitch, Source source) {
  const std::vector<double> zeros(static_cast<std::size_t>(inputs), 0.0);
#pragma omp parallel
  {
    std::vector<const double*> rows(static_cast<std::size_t>(taps * kRows));
    Product product;
#pragma omp for schedule(static)
    for (std::int64_t first = 0; first < pixels; first += kRows) {
      const std::int64_t count = std::min(kRows, pixels - first);
      for (std::int64_t t = 0; t < taps; ++t) {
        for (std::int64_t m = 0; m < kRows; ++m) {
          const double* row = m < count ? source(first + m, t) : nullptr;
          rows[static_cast<std::size_t>(t * kRows + m)] = row != nullptr ? row : zeros.data();
        }
      }
      for (std::int64_t j = 0; j < outputs; j += kColumns) {
        product.multiply(rows.data(), taps, inputs, packed + j * taps * inputs);
        for (std::int64_t m = 0; m < count; ++m) {
          finish(product.row(static_cast<int>(m)), std::min(kColumns, outputs - j), (first + m) * out_pitch + j, j,
                 epilogue, out);
        }
      }
    }
  }
}

}  // namespace

void f64_forward(const ConvGeometry& g, const double* x, const double* w, const Epilogue<double>& epilogue, double* y,
                 MemoryPool& pool) {
  const std::int64_t inputs = g.c / g.groups, outputs = g.o / g.groups, taps = g.kh * g.kw;
  const std::int64_t padded = ceil_div(outputs, kColumns) * kColumns;
  const Workspace packed(pool, static_cast<std::size_t>(padded * taps * inputs) * sizeof(double));
  for (std::int64_t group = 0; group < g.groups; ++group) {
    const double* const weights = w + group * outputs * taps * inputs;
    Epilogue<double> of_group = epilogue;
    if (epilogue.bias != nullptr) of_group.bias += group * outputs;
    if (epilogue.residual != nullptr) of_group.residual += group * outputs;
    pack(outputs, taps, inputs, packed.as<double>(),
         [&](std::int64_t o, std::int64_t t, std::int64_t i) { return weights[(o * taps + t) * inputs + i]; });
    convolve(g.n * g.oh * g.ow, taps, inputs, outputs, packed.as<double>(), of_group, y + group * outputs, g.o,
             [&](std::int64_t pixel, std::int64_t t) -> const double* {
               const std::int64_t column = pixel % g.ow, line = pixel / g.ow % g.oh, n = pixel / (g.ow * g.oh);
               const std::int64_t h = line * g.stride_h - g.pad_h + t / g.kw * g.dilation_h;
               const std::int64_t v = column * g.stride_w - g.pad_w + t % g.kw * g.dilation_w;
               if (h < 0 || h >= g.h || v < 0 || v >= g.w) return nullptr;
               return x + ((n * g.h + h) * g.w + v) * g.c + group * inputs;
             });
  }
}

void f64_backward_data(const ConvGeometry& g, const double* dy, const double* w, double* dx, MemoryPool& pool) {
  const std::int64_t inputs = g.c / g.groups, outputs = g.o / g.groups, taps = g.kh * g.kw;
  const std::int64_t padded = ceil_div(inputs, kColumns) * kColumns;
  const Workspace packed(pool, static_cast<std::size_t>(padded * taps * outputs) * sizeof(double));
  for (std::int64_t group = 0; group < g.groups; ++group) {
    const double* const weights = w + group * outputs * taps * inputs;
    pack(inputs, taps, outputs, packed.as<double>(),
         [&](std::int64_t i, std::int64_t t, std::int64_t o) { return weights[(o * taps + t) * inputs + i]; });
    convolve(g.n * g.h * g.w, taps, outputs, inputs, packed.as<double>(), {}, dx + group * inputs, g.c,
             [&](std::int64_t pixel, std::int64_t t) -> const double* {
               const std::int64_t column = pixel % g.w, line = pixel / g.w % g.h, n = pixel / (g.w * g.h);
               const std::int64_t h = line + g.pad_h - t / g.kw * g.dilation_h;
               const std::int64_t v = column + g.pad_w - t % g.kw * g.dilation_w;
               if (h < 0 || h % g.stride_h != 0 || h / g.stride_h >= g.oh) return nullptr;
               if (v < 0 || v % g.stride_w != 0 || v / g.stride_w >= g.ow) return nullptr;
               return dy + ((n * g.oh + h / g.stride_h) * g.ow + v / g.stride_w) * g.o + group * outputs;
             });
  }
}

void f64_backward_weights(const ConvGeometry& g, const double* x, const double* dy, double* dw, MemoryPool&) {
  // Pixels of one round: what a round reads of x and dy stays in the second-level cache while all taps and channel
  // tiles are worked through.
  constexpr std::int64_t kRound = 1024;
  const std::int64_t inputs = g.c / g.groups, outputs = g.o / g.groups, taps = g.kh * g.kw;
  const std::int64_t pixels = g.n * g.oh * g.ow;
  const std::int64_t row_tiles = ceil_div(outputs, kRows), column_tiles = ceil_div(inputs, kColumns);
  std::fill(dw, dw + g.o * taps * inputs, 0.0);
  const std::int64_t jobs = g.groups * taps * column_tiles;
#pragma omp parallel
  {
    std::vector<const double*> left(kRound), right(kRound);
    std::vector<double> packed_x(static_cast<std::size_t>(kRound * kColumns));
    std::vector<double> packed_dy(static_cast<std::size_t>(kRound * kRows));
    Product product;
#pragma omp for schedule(dynamic)
    for (std::int64_t job = 0; job < jobs; ++job) {
      const std::int64_t group = job / (taps * column_tiles), t = job / column_tiles % taps;
      const std::int64_t c = job % column_tiles * kColumns, width = std::min(kColumns, inputs - c);
      for (std::int64_t first = 0; first < pixels; first += kRound) {
        const std::int64_t end = std::min(pixels, first + kRound);
        std::int64_t count = 0;
        std::array<std::int64_t, kRound> pixel_of;
        for (std::int64_t pixel = first; pixel < end; ++pixel) {
          const std::int64_t column = pixel % g.ow, line = pixel / g.ow % g.oh, n = pixel / (g.ow * g.oh);
          const std::int64_t h = line * g.stride_h - g.pad_h + t / g.kw * g.dilation_h;
          const std::int64_t v = column * g.stride_w - g.pad_w + t % g.kw * g.dilation_w;
          if (h < 0 || h >= g.h || v < 0 || v >= g.w) continue;
          double* const to = packed_x.data() + count * kColumns;
          const double* const from = x + ((n * g.h + h) * g.w + v) * g.c + group * inputs + c;
          std::copy(from, from + width, to);
          right[static_cast<std::size_t>(count)] = to;
          pixel_of[static_cast<std::size_t>(count++)] = pixel;
        }
        for (std::int64_t tile = 0; tile < row_tiles; ++tile) {
          const std::int64_t o = tile * kRows, height = std::min(kRows, outputs - o);
          for (std::int64_t p = 0; p < count; ++p) {
            double* const to = packed_dy.data() + p * kRows;
            const double* const from = dy + pixel_of[static_cast<std::size_t>(p)] * g.o + group * outputs + o;
            std::copy(from, from + height, to);
            left[static_cast<std::size_t>(p)] = to;
          }
          product.multiply_columns(left.data(), right.data(), count);
          for (std::int64_t m = 0; m < height; ++m) {
            double* const to = dw + ((group * outputs + o + m) * taps + t) * inputs + c;
            const double* const from = product.row(static_cast<int>(m));
            for (std::int64_t lane = 0; lane < width; ++lane) to[lane] += from[lane];
          }
        }
      }
    }
  }
}

}  // namespace retort::kernels
