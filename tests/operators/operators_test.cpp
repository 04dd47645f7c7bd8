#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "kernels/philox.h"
#include "tests/operators/operator_table.h"

namespace retort::testing {
namespace {

double standard_normal(std::uint32_t stream, std::uint32_t index) {
  const Philox4 r = random_block(2024, stream, 0, 0, index);
  const double u = (r.v[0] + 0.5) / 4294967296.0, v = (r.v[1] + 0.5) / 4294967296.0;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
}

std::vector<double> values_of(const Input& input, std::uint32_t stream) {
  std::vector<double> values(static_cast<std::size_t>(input.shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double z = standard_normal(stream, static_cast<std::uint32_t>(i));
    switch (input.kind) {
      case Input::Kind::normal:
        values[i] = input.parameter * z;
        break;
      case Input::Kind::distinct:  // a permutation of multiples of 0.02 (7919 is prime and larger than any case)
        values[i] =
            0.02 * static_cast<double>((i * 7919 + 13) % values.size()) - 0.01 * static_cast<double>(values.size());
        break;
      case Input::Kind::labels:
        values[i] = random_block(5, stream, 0, 0, static_cast<std::uint32_t>(i)).v[0] %
                    static_cast<std::uint32_t>(input.parameter);
        break;
      case Input::Kind::positive:
        values[i] = 0.25 + std::abs(z);
        break;
      case Input::Kind::constant:
        values[i] = input.parameter;
        break;
    }
    values[i] += input.offset;
  }
  return values;
}

// Rounds host values to what the type can hold, so that the reference sees what the kernel sees.
Tensor make_input(const Input& input, std::uint32_t stream, DType dtype, Device device) {
  const std::vector<double> values = values_of(input, stream);
  if (input.kind == Input::Kind::labels) {
    return Tensor::from(std::vector<std::int32_t>(values.begin(), values.end()), input.shape, device);
  }
  const DType type = input.accumulated && dtype == DType::bf16 ? DType::f32 : dtype;
  return Tensor::from(values, input.shape).to(type).to(device);
}

std::vector<Tensor> make_inputs(const OperatorCase& c, DType dtype, Device device) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    inputs.push_back(make_input(c.inputs[i], static_cast<std::uint32_t>(i) + 1, dtype, device));
  }
  return inputs;
}

bool is_constant(const OperatorCase& c, std::size_t input) {
  return !c.has_backward || c.inputs[input].kind == Input::Kind::labels ||
         std::find(c.constant_inputs.begin(), c.constant_inputs.end(), input) != c.constant_inputs.end();
}

void expect_close(const std::vector<double>& actual, const std::vector<double>& expected, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double largest = 1.0;
  for (double e : expected) largest = std::max(largest, std::abs(e));
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * largest) << what << ", element " << i;
  }
}

std::vector<std::vector<double>> gradients_of(const OperatorCase& c, DType dtype, Device device) {
  std::vector<Tensor> inputs = make_inputs(c, dtype, device);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!is_constant(c, i)) inputs[i].set_requires_grad();
  }
  project(c.apply(inputs)).backward();
  std::vector<std::vector<double>> gradients;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    gradients.push_back(is_constant(c, i) ? std::vector<double>() : inputs[i].grad().to_doubles());
  }
  return gradients;
}

std::vector<Device> devices() {
  std::vector<Device> all{Device{}};
  if (kernels::cuda_device_count() > 0) all.push_back({DeviceType::cuda, 0});
  return all;
}

class Operator : public ::testing::TestWithParam<int> {
 protected:
  const OperatorCase& row() const { return operator_cases()[static_cast<std::size_t>(GetParam())]; }
};

TEST_P(Operator, MatchesReference) {
  for (const Device device : devices()) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const std::vector<Tensor> inputs = make_inputs(row(), dtype, device);
      std::vector<reference::Array> arrays;
      for (const Tensor& input : inputs) arrays.push_back({input.shape(), input.to_doubles()});
      const reference::Array expected = row().expected(arrays);
      const Tensor result = row().apply(inputs);
      ASSERT_EQ(result.shape(), expected.shape);
      const double tolerance = dtype == DType::f64   ? row().f64_tolerance
                               : dtype == DType::f32 ? row().f32_tolerance
                                                     : row().bf16_tolerance;
      expect_close(result.to_doubles(), expected.values, tolerance,
                   fmt::format("{} on {}", name_of(dtype), device.to_string()));
    }
  }
}

TEST_P(Operator, GradientCheck) {
  for (const Device device : devices()) {
    if (!row().has_backward) {
      for (std::size_t i = 0; i < row().inputs.size(); ++i) {
        std::vector<Tensor> inputs = make_inputs(row(), DType::f64, device);
        inputs[i].set_requires_grad();
        EXPECT_THROW(row().apply(inputs), Error) << "the gradient of input " << i << " is lost";
      }
      continue;
    }
    // Constant inputs are fixed outside of the checked function.
    const std::vector<Tensor> all = make_inputs(row(), DType::f64, device);
    std::vector<Tensor> varied;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!is_constant(row(), i)) varied.push_back(all[i]);
    }
    const auto function = [&](const std::vector<Tensor>& inputs) {
      std::vector<Tensor> arguments;
      std::size_t next = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        arguments.push_back(is_constant(row(), i) ? all[i].clone() : inputs[next++]);
      }
      return row().apply(arguments);
    };
    check_gradients(function, varied, row().gradient);
    if (HasFatalFailure()) FAIL() << "on " << device.to_string();
  }
}

TEST_P(Operator, LowerPrecisionGradientsMatchF64) {
  if (!row().has_backward) return;
  for (const Device device : devices()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      // The f64 gradients at the values that the lower precision can hold.
      const auto exact = [&] {
        std::vector<Tensor> inputs;
        for (const Tensor& t : make_inputs(row(), dtype, Device{})) {
          inputs.push_back(is_floating(t.dtype()) ? t.to(DType::f64) : t);
        }
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          if (!is_constant(row(), i)) inputs[i].set_requires_grad();
        }
        project(row().apply(inputs)).backward();
        std::vector<std::vector<double>> gradients;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          gradients.push_back(is_constant(row(), i) ? std::vector<double>() : inputs[i].grad().to_doubles());
        }
        return gradients;
      }();
      const auto actual = gradients_of(row(), dtype, device);
      const double tolerance = dtype == DType::f32 ? row().f32_gradient_tolerance : row().bf16_gradient_tolerance;
      for (std::size_t i = 0; i < exact.size(); ++i) {
        expect_close(actual[i], exact[i], tolerance,
                     fmt::format("{} on {}, gradient of input {}", name_of(dtype), device.to_string(), i));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Operator, ::testing::Range(0, static_cast<int>(operator_cases().size())),
                         [](const ::testing::TestParamInfo<int>& test) {
                           return operator_cases()[static_cast<std::size_t>(test.param)].name;
                         });

}  // namespace
}  // namespace retort::testing
