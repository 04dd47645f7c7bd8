// Convolution, matrix product and memory of the CPU backend, against loops in f64 (tests/support/reference_conv.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <thread>

#include "kernels/error.h"
#include "kernels/kernels.h"
#include "tests/support/reference_conv.h"

namespace retort {
namespace {

using kernels::Backend;
using kernels::ConvParams;
using kernels::Math;
using reference::Conv;
using reference::Values;

Backend& cpu() {
  return kernels::backend(Device{});
}

// Values in [-1, 1), as the type can hold them.
Values random_values(std::int64_t count, std::uint32_t seed, DType dtype) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  Values values(static_cast<std::size_t>(count));
  for (double& value : values) {
    value = uniform(generator);
    if (dtype == DType::f32) value = static_cast<float>(value);
    if (dtype == DType::bf16) value = bf16(static_cast<float>(value));
  }
  return values;
}

// Backend memory holding values of a type, with sentinels on both sides that must survive.
class Buffer {
 public:
  Buffer(const Shape& shape, DType dtype)
      : bytes_(static_cast<std::size_t>(shape.numel()) * size_of(dtype)),
        data_(cpu().allocate(bytes_ + 2 * kGuard, {})) {
    std::memset(data_, kSentinel, bytes_ + 2 * kGuard);  // 0xff: outputs start as NaN
    view_ = {static_cast<char*>(data_) + kGuard, dtype, shape};
  }
  Buffer(const Shape& shape, DType dtype, const Values& values) : Buffer(shape, dtype) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::f64) view_.as<double>()[i] = values[i];
      if (dtype == DType::f32) view_.as<float>()[i] = static_cast<float>(values[i]);
      if (dtype == DType::bf16) view_.as<bf16>()[i] = bf16(static_cast<float>(values[i]));
    }
  }
  ~Buffer() {
    for (std::size_t i = 0; i < kGuard; ++i) {
      const auto* const bytes = static_cast<const unsigned char*>(data_);
      if (bytes[i] != kSentinel || bytes[kGuard + bytes_ + i] != kSentinel) {
        ADD_FAILURE() << "written outside the output";
        break;
      }
    }
    cpu().deallocate(data_, bytes_ + 2 * kGuard, {});
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const View& view() const { return view_; }
  Values values() const {
    Values result(static_cast<std::size_t>(view_.numel()));
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i] = view_.dtype == DType::f64   ? view_.as<double>()[i]
                  : view_.dtype == DType::f32 ? view_.as<float>()[i]
                                              : view_.as<bf16>()[i];
    }
    return result;
  }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr unsigned char kSentinel = 0xff;
  std::size_t bytes_;
  void* data_;
  View view_;
};

// The largest difference relative to the largest reference value.
double scaled_error(const Values& got, const Values& want) {
  double error = 0.0, scale = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    error = std::max(error, std::abs(got[i] - want[i]));
    scale = std::max(scale, std::abs(want[i]));
  }
  return scale > 0.0 ? error / scale : error;
}

// Winograd may be used by Math::standard (and tf32, which a CPU treats alike): F(4x4, 3x3) is a little less exact.
double tolerance(DType dtype, Math math) {
  if (dtype == DType::f64) return 1e-14;
  if (dtype == DType::bf16) return 4e-3;
  return math == Math::strict ? 3e-6 : 5e-6;
}

struct ConvCase {
  const char* name;
  Conv shape;
};

void PrintTo(const ConvCase& c, std::ostream* out) {
  *out << c.name;
}

class Convolution : public testing::TestWithParam<ConvCase> {
 protected:
  static void check(DType dtype, std::initializer_list<Math> maths) {
    const Conv& s = GetParam().shape;
    const Shape x_shape{s.n, s.h, s.w, s.c}, w_shape{s.o, s.kh, s.kw, s.c / s.groups},
        y_shape{s.n, s.oh(), s.ow(), s.o};
    const DType accumulation = accumulation_type(dtype);
    const Values x = random_values(s.x_size(), 1, dtype), w = random_values(s.w_size(), 2, dtype),
                 bias = random_values(s.o, 3, accumulation), dy = random_values(s.y_size(), 4, dtype);
    const Values want_y = conv_forward(s, x, w, {}), want_biased = conv_forward(s, x, w, bias),
                 want_dx = conv_backward_data(s, dy, w), want_dw = conv_backward_weights(s, x, dy);
    Values want_fused = want_biased;
    for (std::size_t i = 0; i < dy.size(); ++i) want_fused[i] = std::max(0.0, want_biased[i] + dy[i]);
    const Buffer xb(x_shape, dtype, x), wb(w_shape, dtype, w), biasb(Shape{s.o}, accumulation, bias),
        dyb(y_shape, dtype, dy);
    for (Math math : maths) {
      SCOPED_TRACE(std::string(name_of(dtype)) + ", math " + std::to_string(static_cast<int>(math)));
      ConvParams params;
      params.stride_h = params.stride_w = static_cast<int>(s.stride);
      params.pad_h = params.pad_w = static_cast<int>(s.pad);
      params.dilation_h = static_cast<int>(s.dilation_h);
      params.dilation_w = static_cast<int>(s.dilation_w);
      params.groups = static_cast<int>(s.groups);
      params.math = math;
      const Buffer y(y_shape, dtype), y_biased(y_shape, dtype), y_fused(y_shape, dtype), dx(x_shape, dtype),
          dw(w_shape, dtype);
      cpu().conv2d(xb.view(), wb.view(), {}, params, y.view(), {});
      cpu().conv2d(xb.view(), wb.view(), {biasb.view()}, params, y_biased.view(), {});
      cpu().conv2d(xb.view(), wb.view(), {biasb.view(), dyb.view(), kernels::Activation::relu}, params, y_fused.view(),
                   {});
      cpu().conv2d_backward_data(dyb.view(), wb.view(), params, dx.view(), {});
      cpu().conv2d_backward_weights(xb.view(), dyb.view(), params, dw.view(), {});
      const double limit = tolerance(dtype, math);
      EXPECT_LE(scaled_error(y.values(), want_y), limit) << "forward";
      EXPECT_LE(scaled_error(y_biased.values(), want_biased), limit) << "forward with bias";
      EXPECT_LE(scaled_error(y_fused.values(), want_fused), limit) << "forward with bias, residual and ReLU";
      EXPECT_LE(scaled_error(dx.values(), want_dx), limit) << "backward data";
      EXPECT_LE(scaled_error(dw.values(), want_dw), limit) << "backward weights";
    }
  }
};

TEST_P(Convolution, MatchesTheDefinitionInF64) {
  check(DType::f64, {Math::standard});
}
TEST_P(Convolution, MatchesTheDefinitionInF32) {
  check(DType::f32, {Math::strict, Math::standard, Math::tf32});
}
TEST_P(Convolution, MatchesTheDefinitionInBf16) {
  check(DType::bf16, {Math::standard});
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Convolution,
    testing::Values(                                                                                //
        ConvCase{"stem", {.n = 2, .h = 32, .w = 32, .c = 3, .o = 64, .kh = 3, .kw = 3, .pad = 1}},  //
        ConvCase{"stem16", {.n = 3, .h = 17, .w = 13, .c = 3, .o = 16, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"imagenet_stem", {.n = 1, .h = 37, .w = 41, .c = 3, .o = 64, .kh = 7, .kw = 7, .stride = 2, .pad = 3}},
        ConvCase{"narrow", {.n = 3, .h = 32, .w = 32, .c = 16, .o = 16, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"wide", {.n = 2, .h = 16, .w = 16, .c = 64, .o = 64, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"wide_odd", {.n = 3, .h = 15, .w = 9, .c = 80, .o = 48, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"wide_no_padding", {.n = 2, .h = 14, .w = 11, .c = 64, .o = 96, .kh = 3, .kw = 3, .pad = 0}},
        ConvCase{"wide_two_padding", {.n = 3, .h = 10, .w = 6, .c = 48, .o = 64, .kh = 3, .kw = 3, .pad = 2}},
        ConvCase{"very_wide", {.n = 4, .h = 7, .w = 8, .c = 256, .o = 256, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"wide_much_padding", {.n = 1, .h = 7, .w = 6, .c = 64, .o = 64, .kh = 3, .kw = 3, .pad = 3}},
        ConvCase{"widening", {.n = 4, .h = 8, .w = 8, .c = 64, .o = 128, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"deep", {.n = 17, .h = 4, .w = 4, .c = 128, .o = 160, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"one_image", {.n = 1, .h = 8, .w = 8, .c = 128, .o = 64, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"one_pixel", {.n = 1, .h = 1, .w = 1, .c = 64, .o = 64, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"odd_channels", {.n = 2, .h = 9, .w = 7, .c = 37, .o = 41, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"few_channels", {.n = 2, .h = 6, .w = 5, .c = 5, .o = 7, .kh = 3, .kw = 3, .pad = 1}},
        ConvCase{"strided", {.n = 2, .h = 16, .w = 16, .c = 32, .o = 64, .kh = 3, .kw = 3, .stride = 2, .pad = 1}},
        ConvCase{"strided_odd", {.n = 2, .h = 11, .w = 9, .c = 20, .o = 24, .kh = 3, .kw = 3, .stride = 2, .pad = 1}},
        ConvCase{"strided_wide", {.n = 5, .h = 9, .w = 13, .c = 80, .o = 112, .kh = 3, .kw = 3, .stride = 2, .pad = 1}},
        ConvCase{"shortcut", {.n = 3, .h = 8, .w = 8, .c = 64, .o = 128, .kh = 1, .kw = 1, .stride = 2}},
        ConvCase{"pointwise", {.n = 2, .h = 7, .w = 5, .c = 64, .o = 256, .kh = 1, .kw = 1}},
        ConvCase{"pointwise_odd", {.n = 2, .h = 7, .w = 5, .c = 13, .o = 19, .kh = 1, .kw = 1}},
        ConvCase{"five_by_five", {.n = 2, .h = 12, .w = 10, .c = 16, .o = 32, .kh = 5, .kw = 5, .pad = 2}},
        ConvCase{"one_by_three", {.n = 2, .h = 8, .w = 10, .c = 16, .o = 16, .kh = 1, .kw = 3, .pad = 1}},
        ConvCase{"grouped", {.n = 2, .h = 9, .w = 8, .c = 32, .o = 64, .kh = 3, .kw = 3, .pad = 1, .groups = 4}},
        ConvCase{"grouped_odd", {.n = 2, .h = 7, .w = 7, .c = 15, .o = 9, .kh = 3, .kw = 3, .pad = 1, .groups = 3}},
        ConvCase{"depthwise", {.n = 2, .h = 10, .w = 9, .c = 48, .o = 48, .kh = 3, .kw = 3, .pad = 1, .groups = 48}},
        ConvCase{"depthwise_strided",
                 {.n = 2, .h = 9, .w = 9, .c = 20, .o = 20, .kh = 3, .kw = 3, .stride = 2, .pad = 1, .groups = 20}},
        ConvCase{
            "dilated",
            {.n = 2, .h = 9, .w = 8, .c = 5, .o = 7, .kh = 3, .kw = 3, .pad = 2, .dilation_h = 2, .dilation_w = 2}},
        // All but the dilation as the Winograd algorithm wants it.
        ConvCase{
            "dilated_wide",
            {.n = 3, .h = 12, .w = 11, .c = 64, .o = 64, .kh = 3, .kw = 3, .pad = 2, .dilation_h = 2, .dilation_w = 2}},
        ConvCase{
            "dilated_in_one_axis",
            {.n = 3, .h = 12, .w = 11, .c = 32, .o = 32, .kh = 3, .kw = 3, .pad = 1, .dilation_h = 1, .dilation_w = 3}},
        // These take our own tiles for the gradient of the weights.
        ConvCase{
            "dilated_very_wide",
            {.n = 2, .h = 9, .w = 8, .c = 256, .o = 256, .kh = 3, .kw = 3, .pad = 2, .dilation_h = 3, .dilation_w = 2}},
        ConvCase{"dilated_strided_wide",
                 {.n = 5,
                  .h = 9,
                  .w = 13,
                  .c = 80,
                  .o = 112,
                  .kh = 3,
                  .kw = 3,
                  .stride = 2,
                  .pad = 2,
                  .dilation_h = 2,
                  .dilation_w = 3}},
        ConvCase{"dilated_grouped",
                 {.n = 2,
                  .h = 9,
                  .w = 8,
                  .c = 32,
                  .o = 64,
                  .kh = 3,
                  .kw = 3,
                  .pad = 2,
                  .groups = 4,
                  .dilation_h = 2,
                  .dilation_w = 2}},
        ConvCase{"dilated_depthwise",
                 {.n = 2,
                  .h = 10,
                  .w = 9,
                  .c = 48,
                  .o = 48,
                  .kh = 3,
                  .kw = 3,
                  .pad = 2,
                  .groups = 48,
                  .dilation_h = 2,
                  .dilation_w = 2}},
        ConvCase{"dilated_depthwise_strided",
                 {.n = 2,
                  .h = 10,
                  .w = 9,
                  .c = 16,
                  .o = 16,
                  .kh = 5,
                  .kw = 3,
                  .stride = 2,
                  .pad = 3,
                  .groups = 16,
                  .dilation_h = 2,
                  .dilation_w = 3}}),
    [](const testing::TestParamInfo<ConvCase>& case_info) { return case_info.param.name; });

TEST(ConvolutionCalls, RepeatBitForBit) {
  const Conv s{.n = 8, .h = 16, .w = 16, .c = 64, .o = 64, .kh = 3, .kw = 3, .pad = 1};
  const Shape x_shape{s.n, s.h, s.w, s.c}, w_shape{s.o, s.kh, s.kw, s.c};
  const Buffer x(x_shape, DType::f32, random_values(s.x_size(), 1, DType::f32)),
      w(w_shape, DType::f32, random_values(s.w_size(), 2, DType::f32)),
      dy(x_shape, DType::f32, random_values(s.y_size(), 3, DType::f32));
  ConvParams params;
  params.pad_h = params.pad_w = 1;
  const auto run = [&] {
    const Buffer y(x_shape, DType::f32), dx(x_shape, DType::f32), dw(w_shape, DType::f32);
    cpu().conv2d(x.view(), w.view(), {}, params, y.view(), {});
    cpu().conv2d_backward_data(dy.view(), w.view(), params, dx.view(), {});
    cpu().conv2d_backward_weights(x.view(), dy.view(), params, dw.view(), {});
    return std::vector<Values>{y.values(), dx.values(), dw.values()};
  };
  EXPECT_EQ(run(), run());
}

TEST(ConvolutionCalls, EmptyBatchHasZeroWeightGradient) {
  const Buffer x(Shape{0, 8, 8, 16}, DType::f32), dy(Shape{0, 8, 8, 16}, DType::f32),
      dw(Shape{16, 3, 3, 16}, DType::f32);
  ConvParams params;
  params.pad_h = params.pad_w = 1;
  cpu().conv2d_backward_weights(x.view(), dy.view(), params, dw.view(), {});
  EXPECT_EQ(dw.values(), Values(16 * 9 * 16, 0.0));
}

struct MatmulCase {
  std::int64_t m, n, k;
};

class Matmul : public testing::TestWithParam<MatmulCase> {};

TEST_P(Matmul, MatchesTheDefinition) {
  const auto [m, n, k] = GetParam();
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const DType accumulation = accumulation_type(dtype);
    const Values a = random_values(m * k, 1, dtype), b = random_values(k * n, 2, dtype),
                 bias = random_values(n, 3, accumulation);
    for (int variant = 0; variant < 8; ++variant) {
      const bool ta = variant & 1, tb = variant & 2, biased = variant & 4;
      SCOPED_TRACE(std::string(name_of(dtype)) + (ta ? " a'" : " a") + (tb ? " b'" : " b") + (biased ? " + bias" : ""));
      Values want(static_cast<std::size_t>(m * n), 0.0);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = biased ? bias[static_cast<std::size_t>(j)] : 0.0;
          for (std::int64_t l = 0; l < k; ++l) {
            sum += a[static_cast<std::size_t>(ta ? l * m + i : i * k + l)] *
                   b[static_cast<std::size_t>(tb ? j * k + l : l * n + j)];
          }
          want[static_cast<std::size_t>(i * n + j)] = sum;
        }
      }
      const Buffer ab(ta ? Shape{k, m} : Shape{m, k}, dtype, a), bb(tb ? Shape{n, k} : Shape{k, n}, dtype, b),
          biasb(Shape{n}, accumulation, bias), y(Shape{m, n}, dtype);
      cpu().matmul(ab.view(), ta, bb.view(), tb, biased ? ConstView(biasb.view()) : ConstView(), Math::standard,
                   y.view(), {});
      EXPECT_LE(scaled_error(y.values(), want), tolerance(dtype, Math::strict));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Matmul,
                         testing::Values(MatmulCase{1, 1, 1}, MatmulCase{3, 5, 7}, MatmulCase{128, 100, 64},
                                         MatmulCase{13, 10, 512}, MatmulCase{64, 33, 129}, MatmulCase{1, 100, 256},
                                         MatmulCase{100, 256, 1}),
                         [](const testing::TestParamInfo<MatmulCase>& case_info) {
                           const MatmulCase& c = case_info.param;
                           return std::to_string(c.m) + "x" + std::to_string(c.n) + "x" + std::to_string(c.k);
                         });

TEST(CpuMemory, IsAlignedAndReused) {
  for (std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{5000}, std::size_t{1} << 20,
                            std::size_t{3000001}, std::size_t{50} << 20}) {
    void* const first = cpu().allocate(bytes, {});
    ASSERT_NE(first, nullptr);
    const std::size_t alignment = bytes >= std::size_t{1} << 20 ? std::size_t{2} << 20 : 64;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % alignment, 0u) << bytes;
    std::memset(first, 1, bytes);
    cpu().deallocate(first, bytes, {});
    void* const second = cpu().allocate(bytes, {});
    EXPECT_EQ(first, second) << bytes;
    cpu().deallocate(second, bytes, {});
  }
}

TEST(CpuMemory, ASmallerBatchReusesTheLargerOnesBlock) {
  cpu().release_cached();
  constexpr std::size_t kFull = std::size_t{64} << 20, kPart = std::size_t{40} << 20;
  void* const full = cpu().allocate(kFull, {});
  cpu().deallocate(full, kFull, {});
  void* const part = cpu().allocate(kPart, {});
  EXPECT_EQ(part, full);
  cpu().deallocate(part, kPart, {});
  void* const again = cpu().allocate(kFull, {});
  EXPECT_EQ(again, full);
  cpu().deallocate(again, kFull, {});
}

TEST(CpuMemory, CountsActivePeakAndCachedBytes) {
  cpu().release_cached();
  cpu().reset_peak();
  const auto before = cpu().memory_stats();
  EXPECT_EQ(before.cached_bytes, 0u);
  EXPECT_EQ(before.peak_bytes, before.active_bytes);
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  void* const block = cpu().allocate(kBytes, {});
  EXPECT_EQ(cpu().memory_stats().active_bytes, before.active_bytes + kBytes);
  cpu().deallocate(block, kBytes, {});
  const auto after = cpu().memory_stats();
  EXPECT_EQ(after.active_bytes, before.active_bytes);
  EXPECT_EQ(after.peak_bytes, before.active_bytes + kBytes);
  EXPECT_EQ(after.cached_bytes, kBytes);
  cpu().release_cached();
  EXPECT_EQ(cpu().memory_stats().cached_bytes, 0u);
}

TEST(CpuMemory, AnAbsurdRequestIsAnErrorThatGivesTheNumbers) {
  for (std::size_t bytes : {std::size_t{1} << 50, ~std::size_t{0}}) {
    try {
      cpu().allocate(bytes, {});
      FAIL() << "allocated " << bytes << " bytes";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_TRUE(text.starts_with("cpu memory: " + std::to_string(bytes) + " bytes")) << text;
      EXPECT_NE(text.find("active"), std::string::npos) << text;
      EXPECT_NE(text.find("cached"), std::string::npos) << text;
    }
  }
}

TEST(CpuMemory, IsThreadSafe) {
  const std::size_t before = cpu().memory_stats().active_bytes;
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([seed] {
      std::mt19937 generator(seed);
      for (int i = 0; i < 2000; ++i) {
        const std::size_t bytes = 1 + generator() % (i % 50 == 0 ? 4000000u : 4000u);
        auto* const block = static_cast<unsigned char*>(cpu().allocate(bytes, {}));
        block[0] = block[bytes - 1] = static_cast<unsigned char>(seed);
        std::this_thread::yield();
        if (block[0] != seed || block[bytes - 1] != seed) ADD_FAILURE() << "a block was handed out twice";
        cpu().deallocate(block, bytes, {});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cpu().memory_stats().active_bytes, before);
}

TEST(CpuBackend, CapturesWorkAndReplaysIt) {
  int runs = 0;
  const auto graph = cpu().capture({}, [&] { ++runs; });
  EXPECT_EQ(runs, 0);
  graph->replay({});
  graph->replay({});
  EXPECT_EQ(runs, 2);
}

TEST(CpuBackend, CopiesLargeAndSmall) {
  for (std::int64_t count : {std::int64_t{0}, std::int64_t{3}, std::int64_t{1000003}}) {
    const Values values = random_values(count, 5, DType::f64);
    const Buffer a(Shape{count}, DType::f64), b(Shape{count}, DType::f64);
    cpu().copy_from_host(values.data(), a.view(), {});
    cpu().copy(a.view(), b.view(), {});
    Values back(values.size());
    cpu().copy_to_host(b.view(), back.data(), {});
    EXPECT_EQ(back, values);
  }
}

TEST(CpuBackend, DescribesItself) {
  const std::string text = cpu().description();
  EXPECT_NE(text.find("threads, oneDNN "), std::string::npos) << text;
  EXPECT_TRUE(cpu().device().is_cpu());
}

}  // namespace
}  // namespace retort
