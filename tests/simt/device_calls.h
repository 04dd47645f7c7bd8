// Runs one kernel call on the CPU backend and, in all lane orders, on the SIMT device, and compares. Results of
// the SIMT device must not depend on the order by a single bit, must agree with the CPU's within rounding, and its
// outputs start as NaN between guard zones.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <vector>

#include "kernels/kernels.h"

namespace retort::simt {

struct Argument {
  enum class Role { input, output, updated };
  Role role;
  DType type;
  Shape shape;
  std::vector<double> values;  // of inputs and of what is updated
};

// Normal values, of standard deviation `deviation` about `mean`; the same for the same `salt`.
std::vector<double> normal_values(std::int64_t count, double deviation = 1, double mean = 0);
Argument input(DType type, const Shape& shape, double deviation = 1, double mean = 0);
Argument input(DType type, const Shape& shape, std::vector<double> values);
Argument output(DType type, const Shape& shape);
Argument updated(DType type, const Shape& shape, double deviation = 1, double mean = 0);
// Integers from 0 up to and excluding `below`.
Argument indices(const Shape& shape, int below);

using Call = std::function<void(kernels::Backend&, const std::vector<View>&)>;

struct Expectation {
  // Error bounds by the type of the output, relative to the larger of 1 and its largest absolute value.
  double f64 = 1e-13, f32 = 3e-6, bf16 = 8e-3;
  // Elements by which addresses are shifted off their alignment: all of them, or that of one argument.
  int shift = 0;
  std::optional<std::size_t> shifted_argument = std::nullopt;
};

// What the call gives on `backend`: the outputs and updated arguments, as doubles.
std::vector<std::vector<double>> results(kernels::Backend& backend, const std::vector<Argument>& arguments,
                                         const Call& call, const Expectation& shifted = {});

void expect_same(const std::vector<Argument>& arguments, const Call& call, const Expectation& expectation = {});
// Aligned, with all addresses shifted, and with one after the other (these forward only).
void expect_same_shifted_too(const std::vector<Argument>& arguments, const Call& call,
                             const Expectation& expectation = {});

kernels::Backend& simt_device();

}  // namespace retort::simt
