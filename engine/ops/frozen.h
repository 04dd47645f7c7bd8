// Operators of networks that are only run: what files of other frameworks hold beyond the operators of training. None
// has a backward; an input that requires a gradient is an error.
//
// Tensors stay dense: what is broadcast, sliced or transposed elsewhere is an argument here, a Walk over the memory of
// dense tensors. Walks come from files, so every element that one reaches is checked to lie inside its tensor.
#pragma once

#include "engine/tensor.h"

namespace retort {

using kernels::Walk;

// T of x's shape; the functions, and what alpha and beta mean, at kernels::Unary. NaN stays NaN. A clip without a
// bound has an infinite one.
Tensor unary(const Tensor& x, kernels::Unary kind, double alpha = 0, double beta = 0);

// T [shape] = kind(a at walk.a, b at walk.b), from the first element of each on; shape.numel() is the product of the
// walk's extents. NaN in an operand gives NaN, in minimum and maximum too.
Tensor binary(const Tensor& a, const Tensor& b, kernels::Binary kind, const Walk& walk, const Shape& shape);

// A new dense tensor of the elements of x (any type) that walk.a reaches from `offset` on, in the order of the walk;
// walk.b is not looked at.
Tensor strided_copy(const Tensor& x, std::int64_t offset, const Walk& walk, const Shape& shape);

// y[y_offset + sum_k i_k walk.b_k] = x[x_offset + sum_k i_k walk.a_k] for every index i of the walk; what lies between
// keeps its value. Throws Error where x and y share memory, or where an element of y might be written twice: sorted by
// size, each stride of y must be larger than all that the smaller ones reach.
void strided_copy_into(const Tensor& x, std::int64_t x_offset, Tensor& y, std::int64_t y_offset, const Walk& walk);

}  // namespace retort
