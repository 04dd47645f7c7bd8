#include "kernels/available_memory.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/check.h"

namespace retort::kernels {

std::size_t available_cuda_memory(int device) {
  int current = 0;
  std::size_t free = 0, total = 0;
  RETORT_CALL(cudaGetDevice(&current));
  RETORT_CALL(cudaSetDevice(device));
  RETORT_CALL(cudaMemGetInfo(&free, &total));
  RETORT_CALL(cudaSetDevice(current));
  return free;
}

}  // namespace retort::kernels
