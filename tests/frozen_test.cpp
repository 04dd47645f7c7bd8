// Operators of frozen networks: what no row of the operator table says. Walks that leave their tensors, other element
// types, NaN and infinity, and the sizes at which work is cut into pieces for the threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "engine/ops.h"

namespace retort {
namespace {

using kernels::Binary;
using kernels::Unary;

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(),
                       kLeast = std::numeric_limits<std::int64_t>::min();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

Tensor numbers(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::from(values, shape);
}

template <typename F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Walks over a tensor of 24 elements, from `offset` on.
struct BadWalk {
  std::int64_t offset;
  Walk walk;
};
const BadWalk kOutside[] = {
    {0, {1, {25}, {1}}},                      // one too many
    {1, {1, {24}, {1}}},                      // begins too late
    {0, {1, {2}, {-1}}},                      // before the first
    {-1, {1, {2}, {1}}},                      //
    {-1, {1, {2}, {0}}},                      //
    {24, {0}},                                // a single element, behind the last
    {0, {2, {2, 13}, {12, 1}}},               // the sum of two axes
    {10, {2, {2, 2}, {-11, 5}}},              // down too far, though the other axis goes up
    {0, {1, {2}, {kMost}}},                   // products and sums beyond 64 bits
    {0, {1, {2}, {kLeast}}},                  //
    {kMost, {1, {2}, {1}}},                   //
    {kMost, {1, {2}, {kMost}}},               //
    {kLeast, {1, {2}, {kMost}}},              //
    {1, {1, {3}, {kMost - 1}}},               //
    {0, {2, {1 << 20, 2}, {kMost / 4, 23}}},  //
};

TEST(FrozenWalks, ElementsOutsideAreRefused) {
  const Tensor x = numbers({2, 3, 4});
  for (const BadWalk& bad : kOutside) {
    SCOPED_TRACE(::testing::Message() << "offset " << bad.offset << ", stride " << bad.walk.a[0]);
    std::int64_t count = 1;
    for (int k = 0; k < bad.walk.rank; ++k) count *= bad.walk.extents[static_cast<std::size_t>(k)];
    EXPECT_THAT(message_of([&] { strided_copy(x, bad.offset, bad.walk, {count}); }),
                ::testing::StartsWith("strided_copy: the walk leaves the input [2, 3, 4], beginning at element "));
    Walk swapped = bad.walk;
    std::swap(swapped.a, swapped.b);
    const Tensor large = numbers({count});
    for (std::size_t k = 0; k < 6; ++k) swapped.a[k] = 0;
    Tensor y = x.clone();
    EXPECT_THAT(message_of([&] { strided_copy_into(large, 0, y, bad.offset, swapped); }),
                ::testing::StartsWith("strided_copy_into: the walk leaves the output [2, 3, 4]"));
    EXPECT_EQ(y.to_host<float>(), x.to_host<float>());
    if (bad.offset != 0) continue;  // an operand of binary begins at its first element
    EXPECT_THAT(message_of([&] { binary(x, large, Binary::add, bad.walk, {count}); }),
                ::testing::StartsWith("binary: the walk leaves the first operand [2, 3, 4]"));
    EXPECT_THAT(message_of([&] { binary(large, x, Binary::add, swapped, {count}); }),
                ::testing::StartsWith("binary: the walk leaves the second operand [2, 3, 4]"));
  }
}

TEST(FrozenWalks, TheLastElementsAreInside) {
  const Tensor x = numbers({2, 3, 4});
  EXPECT_EQ(strided_copy(x, 23, {1, {24}, {-1}}, {24}).to_host<float>().back(), 0.0f);
  EXPECT_EQ(strided_copy(x, 23, {0}, {}).to_host<float>(), std::vector<float>{23});
  EXPECT_EQ(strided_copy(x, 10, {2, {2, 2}, {-10, 13}}, {4}).to_host<float>(), (std::vector<float>{10, 23, 0, 13}));
}

TEST(FrozenWalks, CountAndRankAreChecked) {
  const Tensor x = numbers({2, 3, 4});
  EXPECT_THAT(message_of([&] {
                strided_copy(x, 0, {1, {3}, {1}}, {4});
              }),
              ::testing::StrEq("strided_copy: a walk over 3 elements to shape [4]"));
  EXPECT_THAT(message_of([&] { strided_copy(x, 0, {7, {1}, {1}}, {1}); }), ::testing::HasSubstr("rank 7"));
  EXPECT_THAT(message_of([&] { strided_copy(x, 0, {-1, {1}, {1}}, {1}); }), ::testing::HasSubstr("rank -1"));
  EXPECT_THAT(message_of([&] { strided_copy(x, 0, {1, {-1}, {1}}, {1}); }), ::testing::HasSubstr("over -1 elements"));
  // 2^32 * 2^32 elements that are all the same one.
  const std::int64_t many = std::int64_t{1} << 32;
  EXPECT_THAT(message_of([&] {
                strided_copy(x, 0, {2, {many, many}, {0, 0}}, {0});
              }),
              ::testing::HasSubstr("more than 2^63 elements"));
}

TEST(FrozenWalks, NothingIsDoneForNoElements) {
  const Tensor x = numbers({2, 3}), none = Tensor::empty({0, 3}, DType::f32, {});
  EXPECT_EQ(strided_copy(none, 0, {2, {0, 3}, {3, 1}}, {0, 3}).shape(), (Shape{0, 3}));
  EXPECT_EQ(strided_copy(x, 6, {2, {2, 0}, {3, 1}}, {2, 0}).numel(), 0);
  EXPECT_EQ(binary(none, x, Binary::add, {2, {0, 3}, {3, 1}, {3, 1}}, {0, 3}).numel(), 0);
  Tensor y = x.clone();
  strided_copy_into(none, 0, y, 0, {1, {0}, {1}, {1}});
  EXPECT_EQ(y.to_host<float>(), x.to_host<float>());
  EXPECT_THROW(strided_copy(none, 0, {1, {1}, {1}}, {1}), Error);
}

TEST(FrozenWalks, AnElementIsWrittenOnce) {
  const Tensor x = numbers({24});
  Tensor y = numbers({24});
  const auto into = [&](const Walk& walk) { return message_of([&] { strided_copy_into(x, 0, y, 0, walk); }); };
  EXPECT_THAT(into({1, {2}, {1}, {0}}), ::testing::HasSubstr("to the same element more than once"));
  EXPECT_THAT(into({2, {3, 3}, {3, 1}, {2, 1}}), ::testing::HasSubstr("to the same element more than once"));
  EXPECT_THAT(into({2, {2, 2}, {2, 1}, {1, 1}}), ::testing::HasSubstr("to the same element more than once"));
  EXPECT_EQ(into({2, {3, 3}, {3, 1}, {1, 3}}), "");
  EXPECT_EQ(into({2, {1, 3}, {0, 1}, {0, 8}}), "");
}

TEST(FrozenWalks, InputAndOutputLieApart) {
  Tensor x = numbers({24});
  EXPECT_THAT(message_of([&] {
                strided_copy_into(x, 0, x, 12, {1, {12}, {1}, {1}});
              }),
              ::testing::HasSubstr("share memory"));
  Tensor first = x.slice(0, {12}), second = x.slice(12, {12}), middle = x.slice(6, {12});
  EXPECT_THAT(message_of([&] {
                strided_copy_into(first, 0, middle, 0, {1, {12}, {1}, {1}});
              }),
              ::testing::HasSubstr("share memory"));
  strided_copy_into(first, 0, second, 0, {1, {12}, {1}, {1}});
  EXPECT_EQ(second.to_host<float>(), first.to_host<float>());
}

TEST(FrozenWalks, TypesMustMatch) {
  Tensor f32 = numbers({4}), f64 = f32.to(DType::f64);
  EXPECT_THROW(strided_copy_into(f32, 0, f64, 0, {1, {4}, {1}, {1}}), Error);
  EXPECT_THROW(binary(f32, f64, Binary::add, {1, {4}, {1}, {1}}, {4}), Error);
  EXPECT_THROW(binary(f32.to(DType::i32), f32.to(DType::i32), Binary::add, {1, {4}, {1}, {1}}, {4}), Error);
  EXPECT_THROW(unary(f32.to(DType::i32), Unary::negative), Error);
}

TEST(FrozenWalks, AnyTypeIsCopied) {
  const std::vector<double> transposed{0, 3, 1, 4, 2, 5};
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u8}) {
    const Tensor x = numbers({2, 3}).to(type);
    EXPECT_EQ(strided_copy(x, 0, {2, {3, 2}, {1, 3}}, {3, 2}).to_doubles(), transposed) << name_of(type);
    EXPECT_EQ(strided_copy(x, 0, {2, {2, 3}, {3, 1}}, {6}).to_doubles(), x.to_doubles()) << name_of(type);
  }
}

TEST(FrozenWalks, AGradientIsNeverLost) {
  Tensor x = numbers({4}), y = numbers({4});
  y.set_requires_grad();
  EXPECT_THROW(strided_copy_into(x, 0, y, 0, {1, {4}, {1}, {1}}), Error);
}

// Large enough for several threads, whose ranges begin in the middle of rows.
TEST(FrozenWalks, PiecesMeet) {
  const std::int64_t n = 3, h = 37, w = 29, c = 41;
  const Tensor x = numbers({n, h, w, c}), scale = numbers({n, 1, 1, c});
  const std::vector<float> xs = x.to_host<float>();
  const auto sums = binary(x, scale, Binary::add, {3, {n, h * w, c}, {h * w * c, c, 1}, {c, 0, 1}}, x.shape());
  const auto moved = strided_copy(x, 0, {3, {n, c, h * w}, {h * w * c, 1, c}}, {n, c, h, w});
  const std::vector<float> got = sums.to_host<float>(), other = moved.to_host<float>();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const std::int64_t image = i / (h * w * c), channel = i % c, pixel = i / c % (h * w);
    ASSERT_EQ(got[static_cast<std::size_t>(i)], static_cast<float>(i + image * c + channel)) << i;
    ASSERT_EQ(other[static_cast<std::size_t>((image * c + channel) * h * w + pixel)], static_cast<float>(i)) << i;
  }
}

TEST(FrozenFunctions, NanStaysNan) {
  const Walk walk{1, {2}, {1}, {1}};
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    for (int kind = 0; kind <= static_cast<int>(Unary::floor); ++kind) {
      // Long enough for a vector, and one left over.
      const Tensor x = Tensor::from(std::vector<float>(33, kNan), {33}).to(type);
      for (const double v : unary(x, static_cast<Unary>(kind), -1, 1).to_doubles()) {
        EXPECT_TRUE(std::isnan(v)) << name_of(type) << ", function " << kind;
      }
    }
    const Tensor a = Tensor::from(std::vector<float>{kNan, 2}, {2}).to(type),
                 b = Tensor::from(std::vector<float>{3, kNan}, {2}).to(type);
    for (int kind = 0; kind <= static_cast<int>(Binary::power); ++kind) {
      for (const double v : binary(a, b, static_cast<Binary>(kind), walk, {2}).to_doubles()) {
        EXPECT_TRUE(std::isnan(v)) << name_of(type) << ", function " << kind;
      }
    }
  }
}

TEST(FrozenFunctions, LimitsAtInfinity) {
  const auto at = [](Unary kind, float v, double alpha = 0, double beta = 0) {
    return unary(Tensor::from(std::vector<float>{v}, {1}), kind, alpha, beta).to_host<float>()[0];
  };
  EXPECT_EQ(at(Unary::exp, kInfinity), kInfinity);
  EXPECT_EQ(at(Unary::exp, -kInfinity), 0.0f);
  EXPECT_EQ(at(Unary::exp, 88.8f), kInfinity);
  EXPECT_EQ(at(Unary::exp, 0.0f), 1.0f);
  EXPECT_EQ(at(Unary::sigmoid, kInfinity), 1.0f);
  EXPECT_EQ(at(Unary::sigmoid, -kInfinity), 0.0f);
  EXPECT_EQ(at(Unary::silu, kInfinity), kInfinity);
  EXPECT_EQ(at(Unary::tanh, -kInfinity), -1.0f);
  EXPECT_EQ(at(Unary::erf, kInfinity), 1.0f);
  EXPECT_EQ(at(Unary::log, 0.0f), -kInfinity);
  EXPECT_EQ(at(Unary::hard_sigmoid, kInfinity, 0.2, 0.5), 1.0f);
  EXPECT_EQ(at(Unary::clip, -1e30f, 0, kInfinity), 0.0f);
  EXPECT_EQ(at(Unary::clip, 1e30f, 0, kInfinity), 1e30f);
  EXPECT_EQ(at(Unary::clip, 5.0f, 3, 2), 2.0f);  // crossed bounds: the upper one, as in ONNX
}

// The exponential is our own: against the library's in f64, over all that f32 can hold.
TEST(FrozenFunctions, TheExponentialIsExactToTwoUnits) {
  std::vector<float> values;
  for (int i = -110 * 512; i <= 90 * 512; ++i) values.push_back(static_cast<float>(i) / 512 + 1e-4f);
  const std::vector<float> got =
      unary(Tensor::from(values, {static_cast<std::int64_t>(values.size())}), Unary::exp).to_host<float>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double exact = std::exp(static_cast<double>(values[i]));
    if (exact > std::numeric_limits<float>::max()) {
      ASSERT_EQ(got[i], kInfinity) << values[i];
      continue;
    }
    // 2^-149 is the distance between subnormal numbers.
    ASSERT_NEAR(got[i], exact, std::max(exact * 0x1p-22, 0x1p-149)) << values[i];
  }
}

TEST(FrozenPools, WindowsThatSeeNothingAreRefused) {
  const Tensor x = numbers({1, 4, 4, 1});
  kernels::PoolParams p{2, 2, 2, 2, 2, 2};
  EXPECT_THAT(message_of([&] { max_pool(x, p); }), ::testing::HasSubstr("less than the kernel 2"));
  p = {2, 2, 2, 2, 0, 0, 2, 2};
  EXPECT_THAT(message_of([&] { average_pool(x, p); }), ::testing::HasSubstr("less than the kernel 2"));
  p = {2, 2, 5, 5, 1, 1};
  p.dilation_h = p.dilation_w = 5;  // taps at -1 and 4, on either side of the image
  EXPECT_THAT(message_of([&] { max_pool(x, p); }), ::testing::HasSubstr("sees none of 4 rows"));
  p.pad_h = p.pad_w = 0;
  EXPECT_THAT(message_of([&] { max_pool(x, p); }), ::testing::HasSubstr("reaches over 6 of 4 rows"));
  p = {1, 1, 1, 1, 0, 0};
  p.dilation_h = 2;
  EXPECT_THAT(message_of([&] { average_pool(x, p); }), ::testing::StartsWith("average_pool: dilation 2x1"));
  p = {1, 1, 1, 1, 0, 0};
  p.dilation_h = std::numeric_limits<int>::max();
  EXPECT_THAT(message_of([&] { max_pool(x, p); }), ::testing::HasSubstr("too many"));
  p = {2, 2, 1, 1, 0, 0, -2, 0};
  EXPECT_THAT(message_of([&] { max_pool(x, p); }), ::testing::StartsWith("max_pool: end padding -2x0"));
  p = {1 << 30, 1, 1, 1, (1 << 30) - 1, 0};
  EXPECT_THAT(message_of([&] { max_pool(x, p); }), ::testing::StartsWith("max_pool: "));
}

TEST(FrozenConvolutions, ADilatedKernelMustFit) {
  const Tensor x = numbers({1, 5, 5, 1}), w = numbers({1, 3, 3, 1});
  kernels::ConvParams p;
  p.dilation_h = p.dilation_w = 2;
  EXPECT_EQ(conv2d(x, w, {}, p).shape(), (Shape{1, 1, 1, 1}));
  // The nine taps are the corners, the middles of the edges and the centre.
  EXPECT_EQ(conv2d(x, w, {}, p).item(), 0 * 0 + 1 * 2 + 2 * 4 + 3 * 10 + 4 * 12 + 5 * 14 + 6 * 20 + 7 * 22 + 8 * 24);
  p.dilation_w = 3;
  EXPECT_THAT(message_of([&] { conv2d(x, w, {}, p); }), ::testing::HasSubstr("is larger than the input [1, 5, 5, 1]"));
  p.dilation_w = std::numeric_limits<int>::max();
  EXPECT_THROW(conv2d(x, w, {}, p), Error);
  p.dilation_w = 0;
  EXPECT_THAT(message_of([&] { conv2d(x, w, {}, p); }), ::testing::HasSubstr("dilation 2x0"));
}

}  // namespace
}  // namespace retort
