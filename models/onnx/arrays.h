// Arithmetic on constants, on the host: what a compiled graph does not compute anew at each run. Results are row-major.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/onnx_file.h"
#include "kernels/kernels.h"

namespace retort::onnx {

Extents row_major_strides(const Extents& dims);
// Strides of a dense array whose axes lie in memory in `order`, the outermost first.
Extents dense_strides(const Extents& dims, const std::vector<int>& order);
// The axes, the outermost in memory first; of equal strides (extents of 1) the lower axis.
std::vector<int> memory_order(const Extents& strides);

OnnxArray make_array(OnnxType type, const Extents& dims, double value = 0);
// y[i] = x[offset + sum_k i_k strides_k].
OnnxArray copied(const OnnxArray& x, std::int64_t offset, const Extents& dims, const Extents& strides);
// y[offset + sum_k i_k strides_k] = x[i].
void copy_into(const OnnxArray& x, OnnxArray& y, std::int64_t offset, const Extents& strides);

// As the kernels of the same names do it, but integers as integers: an overflow of int64 or a division by zero is an
// Error, an overflow of a narrower type wraps.
OnnxArray unary(const OnnxArray& x, kernels::Unary kind, double alpha, double beta);
OnnxArray binary(const OnnxArray& a, const Extents& a_strides, const OnnxArray& b, const Extents& b_strides,
                 kernels::Binary kind, const Extents& dims);
// Sum over the axes with `reduced` set, which keep an extent of 1; with `mean` divided by their number of elements.
OnnxArray reduced(const OnnxArray& x, const std::vector<bool>& reduced, bool mean);
// Mean and variance (divided by the number of elements) of each index of axis 1 of floating numbers.
std::pair<OnnxArray, OnnxArray> channel_statistics(const OnnxArray& x);
// Throws Error for a number that an integer type cannot hold.
OnnxArray cast(const OnnxArray& x, OnnxType type);

}  // namespace retort::onnx
