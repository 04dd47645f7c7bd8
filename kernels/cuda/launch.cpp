// The host side of launch.h on a real device.
#include "kernels/cuda/launch.h"

#include <array>
#include <atomic>
#include <string_view>

#include "kernels/error.h"

namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {
namespace detail {

void fail_launch(const Grid& grid, dim3 block, const char* problem) {
  std::string_view file = grid.where.file_name();
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos) file.remove_prefix(slash + 1);
  fail("cuda: launch({{{}, {}, {}}}, {{{}, {}, {}}}) at {}:{} in {}: {}", grid.blocks.x, grid.blocks.y, grid.blocks.z,
       block.x, block.y, block.z, file, grid.where.line(), grid.where.function_name(), problem);
}

void launch_kernel(const void* kernel, const Grid& grid, dim3 block, std::size_t shared_bytes, Stream stream,
                   void** args) {
  const cudaError_t status =
      cudaLaunchKernel(kernel, grid.blocks, block, args, shared_bytes, static_cast<cudaStream_t>(stream.handle));
  if (status != cudaSuccess) {
    cudaGetLastError();  // the error is ours now; the next call starts clean
    fail_launch(grid, block, cudaGetErrorString(status));
  }
}

}  // namespace detail

namespace {

void check_call(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail("cuda: {}: {}", call, cudaGetErrorString(status));
}

}  // namespace

int multiprocessor_count() {
  static std::array<std::atomic<int>, 64> counts{};
  int device = 0;
  check_call(cudaGetDevice(&device), "cudaGetDevice");
  auto& count = counts[static_cast<std::size_t>(device) % counts.size()];
  if (count == 0) {
    int value = 0;
    check_call(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device),
               "cudaDeviceGetAttribute(MultiProcessorCount)");
    count = value;
  }
  return count;
}

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
