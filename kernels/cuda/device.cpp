#include "kernels/cuda/device.h"

#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

constexpr int kOldestMajor = 8;  // Ampere: the first with bf16 and tf32

struct Probe {
  int devices = 0;
  std::string problem;  // one clause; empty when there is a device
};

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Asks the driver once: its answer does not change while the process lives.
const Probe& probe() {
  static const Probe result = [] {
    Probe p;
    int driver = 0;
    int runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    const cudaError_t status = cudaGetDeviceCount(&p.devices);
    cudaGetLastError();
    if (status != cudaSuccess) p.devices = 0;
    if (p.devices > 0) return p;
    if (driver == 0) {
      p.problem = "this machine has no NVIDIA driver";
    } else if (status == cudaErrorInsufficientDriver) {
      p.problem = fmt::format("the NVIDIA driver is too old (it serves CUDA {}, this build needs {})",
                              version_text(driver), version_text(runtime));
    } else if (status == cudaSuccess || status == cudaErrorNoDevice) {
      p.problem = "this machine has no CUDA device, or none is visible (CUDA_VISIBLE_DEVICES)";
    } else {
      p.problem = fmt::format("CUDA does not start: {}", describe(status));
    }
    return p;
  }();
  return result;
}

}  // namespace

std::string describe_device(int index) {
  cudaDeviceProp properties{};
  RETORT_CALL(cudaGetDeviceProperties(&properties, index));
  check(properties.major >= kOldestMajor, "cuda:{}: {} has compute capability {}.{}, {}.0 or newer is needed", index,
        properties.name, properties.major, properties.minor, kOldestMajor);
  int driver = 0;
  int runtime = 0;
  RETORT_CALL(cudaDriverGetVersion(&driver));
  RETORT_CALL(cudaRuntimeGetVersion(&runtime));
  const std::size_t cudnn = cudnnGetVersion();
  return fmt::format("{}, compute capability {}.{}, {:.1f} GiB, driver for CUDA {}, CUDA {}, cuDNN {}.{}.{}",
                     properties.name, properties.major, properties.minor,
                     static_cast<double>(properties.totalGlobalMem) / (1024.0 * 1024.0 * 1024.0), version_text(driver),
                     version_text(runtime), cudnn / 10000, cudnn / 100 % 100, cudnn % 100);
}

CudaProvider built_in_cuda_provider() {
  return {[] { return probe().devices; }, [] { return probe().problem; },
          [](int index) -> std::unique_ptr<Backend> { return std::make_unique<CudaBackend>(index); }};
}

}  // namespace retort::kernels
