// Batch normalisation's backward pass works out from x where the activation was open: the same bits as from y, also
// where values lie at the kinks and where bf16 rounds onto them.
#include <algorithm>
#include <cmath>

#include "tests/simt/device_calls.h"

namespace retort::simt {
namespace {

using kernels::Activation;
using kernels::Backend;
using Views = std::vector<View>;

class SimtBatchNormMask : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, SimtBatchNormMask, testing::Values(DType::f64, DType::f32, DType::bf16),
                         [](const auto& test) { return name_of(test.param); });

// x with every channel's mean exactly 0 and variance near 4: a value and its negative in turn, among them some whose
// normalised value is tiny, and some that only the type's rounding takes to ReLU6's upper end.
std::vector<double> balanced(const Shape& shape) {
  std::vector<double> values = normal_values(shape.numel(), 2, 0);
  const std::int64_t columns = shape.last();
  for (std::int64_t row = 0; row + 1 < shape.rows(); row += 2) {
    for (std::int64_t c = 0; c < columns; ++c) {
      double& first = values[static_cast<std::size_t>(row * columns + c)];
      if (row % 8 == 0) first = 0;
      if (row % 8 == 2) first = std::ldexp(1.0, -120);
      values[static_cast<std::size_t>((row + 1) * columns + c)] = -first;
    }
  }
  return values;
}

TEST_P(SimtBatchNormMask, FromXIsTheOneFromY) {
  const DType t = GetParam(), wide = accumulation_type(t);
  for (const Shape& s : {Shape{2, 5, 10, 7}, Shape{100, 8}, Shape{98, 40}, Shape{1000, 4}}) {
    const Shape c{s.last()};
    std::vector<double> gamma = normal_values(s.last(), 2, 0), beta = normal_values(s.last(), 3, 0);
    gamma[0] = 1;
    beta[0] = 0;
    gamma[1] = 1e-3;
    beta[1] = 5.9995;  // bf16 knows 5.96875 and 6
    gamma[2] = -1;
    beta[2] = 0;
    for (const Activation act : {Activation::relu, Activation::relu6, Activation::identity}) {
      const std::vector<Argument> arguments{input(t, s, balanced(s)),
                                            input(t, s),
                                            input(wide, c, gamma),
                                            input(wide, c, beta),
                                            output(t, s),
                                            output(wide, c),
                                            output(wide, c),
                                            updated(wide, c),
                                            updated(wide, c),
                                            updated(DType::i32, {1}, 0),
                                            output(t, s),
                                            output(t, s),
                                            output(wide, c),
                                            output(wide, c)};
      for (const bool with_dresidual : {false, true}) {
        const auto backward = [&](bool from_x) {
          return results(simt_device(), arguments, [&](Backend& b, const Views& v) {
            b.batch_norm_training(v[0], {}, v[2], v[3], 0.1, 1e-5, act, v[4], v[5], v[6], v[7], v[8], v[9], {});
            if (from_x) b.fill(v[4], -1, {});  // as y it would let nothing through
            b.fill(v[11], 0, {});
            b.batch_norm_backward(v[0], v[4], v[1], v[2], from_x ? ConstView(v[3]) : ConstView(), v[5], v[6], act, true,
                                  v[10], with_dresidual ? v[11] : View(), v[12], v[13], {});
            b.fill(v[4], 0, {});  // the two differ in it
          });
        };
        const auto from_x = backward(true);
        const auto from_y = backward(false);
        for (std::size_t a = 0; a < from_y.size(); ++a) {
          for (std::size_t i = 0; i < from_y[a].size(); ++i) {
            EXPECT_EQ(from_x[a][i], from_y[a][i])
                << s.to_string() << ", activation " << static_cast<int>(act) << ", output " << a << ", element " << i;
          }
        }
        const std::vector<double>& dbeta = from_x.back();
        EXPECT_TRUE(std::any_of(dbeta.begin(), dbeta.end(), [](double sum) { return sum != 0; }));
      }
    }
  }
}

}  // namespace
}  // namespace retort::simt
