// Which CUDA devices there are, and why there is none.
#pragma once

#include <string>

namespace retort::kernels {

// "NVIDIA H200, compute capability 9.0, 139.7 GiB, driver for CUDA 13.0, CUDA 13.0, cuDNN 9.19.0". Throws Error for a
// device that the kernels cannot run on.
std::string describe_device(int index);

}  // namespace retort::kernels
