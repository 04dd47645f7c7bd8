// Unary and Binary (kernels.h) of single numbers: for the CUDA kernels, and for constants that are computed on the
// host. The CPU kernels choose the function outside their loops. NaN passes through all of them.
#pragma once

#include <cmath>

#include "kernels/bf16.h"
#include "kernels/kernels.h"

namespace retort::kernels {

template <typename A>
RETORT_HOST_DEVICE inline A clamp(A x, A low, A high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

template <typename A>
RETORT_HOST_DEVICE inline A apply(Unary kind, A x, A alpha, A beta) {
  switch (kind) {
    case Unary::leaky_relu:
      return x < A(0) ? alpha * x : x;
    case Unary::clip:
      return clamp(x, alpha, beta);
    case Unary::sigmoid:
      return A(1) / (A(1) + std::exp(-x));
    case Unary::hard_sigmoid:
      return clamp(alpha * x + beta, A(0), A(1));
    case Unary::hard_swish:
      return x * clamp(x * (A(1) / A(6)) + A(0.5), A(0), A(1));
    case Unary::silu:
      return x / (A(1) + std::exp(-x));
    case Unary::tanh:
      return std::tanh(x);
    case Unary::erf:
      return std::erf(x);
    case Unary::exp:
      return std::exp(x);
    case Unary::log:
      return std::log(x);
    case Unary::sqrt:
      return std::sqrt(x);
    case Unary::reciprocal:
      return A(1) / x;
    case Unary::absolute:
      return std::abs(x);
    case Unary::negative:
      return -x;
    case Unary::floor:
      return std::floor(x);
  }
  return x;
}

template <typename A>
RETORT_HOST_DEVICE inline A apply(Binary kind, A a, A b) {
  switch (kind) {
    case Binary::add:
      return a + b;
    case Binary::subtract:
      return a - b;
    case Binary::multiply:
      return a * b;
    case Binary::divide:
      return a / b;
    case Binary::minimum:
      return a < b || a != a ? a : b;
    case Binary::maximum:
      return a > b || a != a ? a : b;
    case Binary::power:
      return std::pow(a, b);
  }
  return a;
}

}  // namespace retort::kernels
