// The activations that kernels fuse.
#pragma once

#include <type_traits>

#include "kernels/kernels.h"

namespace retort::kernels::cpu {

// Written so that NaN passes through, as in PyTorch: a tensor that went bad must stay visible. A may be a SIMD vector.
template <Activation kind, typename A>
A activate(A v) {
  if constexpr (kind == Activation::identity) {
    return v;
  } else if constexpr (kind == Activation::relu) {
    return v < A{} ? A{} : v;
  } else {
    const A low = v < A{} ? A{} : v, six = A{} + 6.0f;
    return low > six ? six : low;
  }
}

// dy where the activation with result y was open, else 0.
template <Activation kind, typename A>
A activation_gradient(A y, A dy) {
  if constexpr (kind == Activation::identity) {
    return dy;
  } else if constexpr (kind == Activation::relu) {
    return y <= A(0) ? A(0) : dy;
  } else {
    const A low = y <= A(0) ? A(0) : dy;
    return y >= A(6) ? A(0) : low;
  }
}

// f(std::integral_constant<Activation, kind>{})
template <typename F>
void dispatch_activation(Activation kind, F&& f) {
  switch (kind) {
    case Activation::identity:
      return f(std::integral_constant<Activation, Activation::identity>{});
    case Activation::relu:
      return f(std::integral_constant<Activation, Activation::relu>{});
    case Activation::relu6:
      return f(std::integral_constant<Activation, Activation::relu6>{});
  }
}

}  // namespace retort::kernels::cpu
