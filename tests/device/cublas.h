// The stand-in for cuBLASLt on the CPU: what kernels/cuda calls of libcublasLt. Column-major products from the
// descriptors alone, as the documentation has them ("Using the cublasLt API"); what it forbids or leaves open is
// refused. f32 and bf16 are added up in f32, f64 in f64. Here is what tests may ask it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace retort::standin {

// Algorithms by name, one entry for every product that was accepted since the last call.
std::vector<std::string> take_algorithms_run();

// Handles, descriptors, layouts and preferences that nobody has destroyed.
std::size_t live_cublas_objects();

}  // namespace retort::standin
