// The CUDA kernels for frozen networks against the CPU backend, in all lane orders, aligned and not.
#include <cmath>
#include <limits>

#include "tests/simt/device_calls.h"

namespace retort::simt {
namespace {

using kernels::Backend;
using kernels::Binary;
using kernels::Unary;
using kernels::Walk;
using Views = std::vector<View>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();

class SimtFrozen : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtFrozen, testing::Values(DType::f64, DType::f32, DType::bf16),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(SimtFrozen, Unary) {
  const DType t = GetParam();
  for (int kind = 0; kind <= static_cast<int>(Unary::floor); ++kind) {
    SCOPED_TRACE(kind);
    std::vector<double> values = normal_values(1031, 2);
    values[0] = kNan;
    values[9] = kInfinity;
    values[18] = -kInfinity;
    values[1030] = kNan;
    const auto call = [&](double alpha, double beta) {
      return
          [=](Backend& b, const Views& v) { b.unary(v[0], static_cast<kernels::Unary>(kind), alpha, beta, v[1], {}); };
    };
    expect_same_shifted_too({input(t, {1031}, values), output(t, {1031})}, call(0.3, 0.9));
    expect_same({updated(t, {77}, 3)},
                [&](Backend& b, const Views& v) { b.unary(v[0], static_cast<kernels::Unary>(kind), -1, 1, v[0], {}); });
  }
}

struct Broadcast {
  const char* name;
  Shape a, b, y;
  Walk walk;
};
const Broadcast kBroadcasts[] = {
    {"same shape", {9001}, {9001}, {9001}, {1, {9001}, {1}, {1}}},
    {"scalar", {4, 40}, {1}, {4, 40}, {2, {4, 40}, {40, 1}, {0, 0}}},
    {"from scalar", {1}, {333}, {333}, {1, {333}, {0}, {1}}},
    {"channel, packed", {3, 5, 48}, {48}, {3, 5, 48}, {2, {15, 48}, {48, 1}, {0, 1}}},
    {"channel, odd", {3, 5, 7}, {7}, {3, 5, 7}, {2, {15, 7}, {7, 1}, {0, 1}}},
    {"image and channel", {3, 6, 16}, {3, 16}, {3, 6, 16}, {3, {3, 6, 16}, {96, 16, 1}, {16, 0, 1}}},
    {"pixel", {3, 6, 16}, {3, 6}, {3, 6, 16}, {3, {3, 6, 16}, {96, 16, 1}, {6, 1, 0}}},
    // Dense along the last axis, but its rows begin inside a pack.
    {"pitch", {5, 17}, {5, 16}, {5, 16}, {2, {5, 16}, {17, 1}, {16, 1}}},
    {"transposed", {6, 8}, {8, 6}, {6, 8}, {2, {6, 8}, {8, 1}, {1, 6}}},
    {"six axes", {64}, {64}, {2, 2, 2, 8}, {6, {2, 2, 2, 2, 2, 2}, {1, 4, 2, 16, 8, 32}, {32, 2, 8, 1, 16, 4}}},
};

TEST_P(SimtFrozen, Binary) {
  const DType t = GetParam();
  for (const Broadcast& c : kBroadcasts) {
    SCOPED_TRACE(c.name);
    std::vector<double> a = normal_values(c.a.numel()), b = normal_values(c.b.numel(), 1, 2);
    for (double& v : a) v = 0.25 + std::abs(v);
    a[a.size() / 2] = kNan;
    b[b.size() / 3] = b.size() > 1 ? kNan : 2;
    for (int kind = 0; kind <= static_cast<int>(Binary::power); ++kind) {
      SCOPED_TRACE(kind);
      expect_same_shifted_too({input(t, c.a, a), input(t, c.b, b), output(t, c.y)},
                              [&](Backend& backend, const Views& v) {
                                backend.binary(v[0], v[1], static_cast<kernels::Binary>(kind), c.walk, v[2], {});
                              },
                              {1e-12, 5e-6, 8e-3});
    }
  }
}

TEST_P(SimtFrozen, BinaryInPlace) {
  const DType t = GetParam();
  const auto times = [](const Walk& walk) {
    return [walk](Backend& b, const Views& v) { b.binary(v[0], v[1], Binary::multiply, walk, v[0], {}); };
  };
  expect_same_shifted_too({updated(t, {4, 5, 16}), input(t, {4, 16})}, times({3, {4, 5, 16}, {80, 16, 1}, {16, 0, 1}}));
  expect_same_shifted_too({updated(t, {333}), input(t, {333})}, times({1, {333}, {1}, {1}}));
}

struct Copy {
  const char* name;
  std::int64_t x_size, x_offset, y_size, y_offset;
  Walk walk;
};
const Copy kCopies[] = {
    {"all", 1031, 0, 1031, 0, {1, {1031}, {1}, {1}}},
    {"a piece", 64, 16, 128, 32, {1, {32}, {1}, {1}}},
    {"an odd piece", 64, 3, 128, 5, {1, {33}, {1}, {1}}},
    {"rows", 480, 0, 960, 32, {3, {3, 5, 32}, {160, 32, 1}, {320, 64, 1}}},
    {"odd rows", 99, 2, 200, 7, {2, {9, 5}, {11, 1}, {21, 1}}},
    {"transposed", 240, 0, 240, 0, {3, {2, 8, 15}, {120, 1, 8}, {120, 15, 1}}},
    {"mirrored", 60, 56, 60, 0, {2, {15, 4}, {-4, 1}, {4, 1}}},
    {"backwards", 33, 32, 33, 0, {1, {33}, {-1}, {1}}},
    {"one for all", 3, 1, 50, 0, {1, {50}, {0}, {1}}},
    {"every third", 100, 0, 100, 1, {1, {33}, {3}, {3}}},
    {"one element", 5, 3, 5, 4, {0}},
    {"six axes", 64, 0, 64, 0, {6, {2, 2, 2, 2, 2, 2}, {1, 4, 2, 16, 8, 32}, {32, 16, 8, 4, 2, 1}}},
    {"none", 5, 3, 5, 4, {2, {0, 7}, {1, 1}, {1, 1}}},
};

TEST(SimtCopies, Strided) {
  for (const Copy& c : kCopies) {
    SCOPED_TRACE(c.name);
    for (const DType t : {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u8}) {
      // What the walk leaves out must keep its value.
      expect_same_shifted_too(
          {input(t, {c.x_size}, 1, 50), updated(t, {c.y_size}, 1, 90)},
          [&](Backend& b, const Views& v) { b.strided_copy(v[0], c.x_offset, v[1], c.y_offset, c.walk, {}); },
          {0, 0, 0});
    }
  }
}

}  // namespace
}  // namespace retort::simt
