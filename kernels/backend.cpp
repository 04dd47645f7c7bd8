#include <array>
#include <mutex>

#include "kernels/error.h"
#include "kernels/kernels.h"

namespace retort::kernels {
namespace {

constexpr int kMaxCudaDevices = 16;

struct Registry {
  std::mutex mutex;
  CudaProvider cuda = built_in_cuda_provider();
  std::unique_ptr<Backend> cpu;
  std::array<std::unique_ptr<Backend>, kMaxCudaDevices> cuda_backends;
};

// Never destroyed: tensors in static storage may outlive any order of destruction we could arrange.
Registry& registry() {
  static auto* const instance = new Registry;
  return *instance;
}

}  // namespace

void Backend::accumulate_conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx,
                                              Stream stream) {
  const auto release = [&](void* data) { deallocate(data, dx.bytes(), stream); };
  const std::unique_ptr<void, decltype(release)> own(allocate(dx.bytes(), stream), release);
  const View contribution{own.get(), dx.dtype, dx.shape};
  conv2d_backward_data(dy, w, params, contribution, stream);
  accumulate(contribution, dx, stream);
}

Backend& backend(Device device) {
  Registry& r = registry();
  const std::scoped_lock lock(r.mutex);
  if (device.is_cpu()) {
    if (!r.cpu) r.cpu = make_cpu_backend();
    return *r.cpu;
  }
  const int count = r.cuda.device_count();
  check(count > 0, "device {}: {}; use device = \"cpu\" or \"auto\"", device.to_string(), r.cuda.why_unavailable());
  check(device.index >= 0 && device.index < count && device.index < kMaxCudaDevices,
        "device {}: this machine has {} CUDA device(s), numbered from 0", device.to_string(), count);
  auto& slot = r.cuda_backends[static_cast<std::size_t>(device.index)];
  if (!slot) slot = r.cuda.create(device.index);
  return *slot;
}

int cuda_device_count() {
  return registry().cuda.device_count();
}

void set_cuda_provider(const CudaProvider& provider) {
  Registry& r = registry();
  const std::scoped_lock lock(r.mutex);
  r.cuda = provider;
}

}  // namespace retort::kernels
