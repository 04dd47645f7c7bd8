// Stands in for kernels/cuda in a build without CUDA.
#include "kernels/available_memory.h"

#include "kernels/error.h"

namespace retort::kernels {

std::size_t available_cuda_memory(int) {
  fail("cuda: this build has no CUDA");
}

}  // namespace retort::kernels
