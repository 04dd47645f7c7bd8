// Stands in for kernels/cuda in a build without CUDA.
#include "kernels/error.h"
#include "kernels/kernels.h"

namespace retort::kernels {

CudaProvider built_in_cuda_provider() {
  return {[] { return 0; }, [] { return std::string("this build has no CUDA"); },
          [](int) -> std::unique_ptr<Backend> { fail("cuda: this build has no CUDA"); }};
}

}  // namespace retort::kernels
