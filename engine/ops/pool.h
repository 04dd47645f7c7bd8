// Pooling over the H and W axes of x T [N, H, W, C].
#pragma once

#include "engine/tensor.h"

namespace retort {

using kernels::PoolParams;

// Both: output extents as for conv2d, or rounded up with ceil_mode, less a last window that would begin in the end's
// padding. Padding must be less than the kernel.
// Padding is never chosen; of equal values the first in row order wins.
Tensor max_pool(const Tensor& x, const PoolParams& params);
// Divides by the kernel's area, padding included as far as there is some (ceil_mode may reach beyond); without
// count_padding by the number of pixels. No dilation.
Tensor average_pool(const Tensor& x, const PoolParams& params);
// -> [N, height, width, C]; cell i of n averages [floor(i L / n), ceil((i + 1) L / n)) of an axis of length L.
Tensor adaptive_average_pool(const Tensor& x, std::int64_t height, std::int64_t width);
// -> [N, C].
Tensor global_average_pool(const Tensor& x);

}  // namespace retort
