#include "kernels/cuda/memory.h"

#include <algorithm>
#include <limits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/native.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

std::size_t pool_attribute(cudaMemPool_t pool, cudaMemPoolAttr attribute) {
  std::uint64_t value = 0;
  RETORT_CALL(cudaMemPoolGetAttribute(pool, attribute, &value));
  return value;
}

std::size_t graph_attribute(int device, cudaGraphMemAttributeType attribute) {
  std::uint64_t value = 0;
  RETORT_CALL(cudaDeviceGetGraphMemAttribute(device, attribute, &value));
  return value;
}

}  // namespace

DeviceMemory::DeviceMemory(int device) : device_(device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  RETORT_CALL(cudaMemPoolCreate(pool_.out(), &properties));
  std::uint64_t threshold = std::numeric_limits<std::uint64_t>::max();
  RETORT_CALL(cudaMemPoolSetAttribute(pool_.get(), cudaMemPoolAttrReleaseThreshold, &threshold));
}

void* DeviceMemory::allocate(std::size_t bytes, cudaStream_t stream) {
  const std::size_t size = std::max<std::size_t>(bytes, 1);
  const bool recorded = recording_ && is_capturing(stream);
  void* data = nullptr;
  cudaError_t status = cudaMallocFromPoolAsync(&data, size, pool_.get(), stream);
  if (status == cudaErrorMemoryAllocation && !recording_) {  // a recording must not wait for the device
    cudaGetLastError();
    release_cached();
    status = cudaMallocFromPoolAsync(&data, size, pool_.get(), stream);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail("cuda:{}: out of memory: {} bytes asked for, {}; use a smaller batch", device_, size, summary());
  }
  check_call(status, "cudaMallocFromPoolAsync(&data, size, pool, stream)");
  if (recorded || has_abandoned_) {
    const std::scoped_lock lock(mutex_);
    abandoned_.erase(data);
    if (recorded) recorded_.emplace(data, size);
  }
  return data;
}

void DeviceMemory::deallocate(void* data, cudaStream_t stream) noexcept {
  if (recording_ || has_abandoned_) {
    const std::scoped_lock lock(mutex_);
    if (abandoned_.erase(data) != 0) return;
    if (recording_here() && recorded_.erase(data) == 0) {
      deferred_.push_back({data, stream});
      return;
    }
  }
  // A failure here has no remedy: the device is lost, or the process is ending.
  if (cudaFreeAsync(data, stream) != cudaSuccess) cudaGetLastError();
}

MemoryStats DeviceMemory::stats() const {
  MemoryStats stats;
  stats.active_bytes = pool_attribute(pool_.get(), cudaMemPoolAttrUsedMemCurrent) +
                       graph_attribute(device_, cudaGraphMemAttrUsedMemCurrent);
  stats.peak_bytes =
      pool_attribute(pool_.get(), cudaMemPoolAttrUsedMemHigh) + graph_attribute(device_, cudaGraphMemAttrUsedMemHigh);
  const std::size_t reserved = pool_attribute(pool_.get(), cudaMemPoolAttrReservedMemCurrent) +
                               graph_attribute(device_, cudaGraphMemAttrReservedMemCurrent);
  stats.cached_bytes = reserved - std::min(reserved, stats.active_bytes);
  return stats;
}

void DeviceMemory::reset_peak() {
  std::uint64_t zero = 0;
  RETORT_CALL(cudaMemPoolSetAttribute(pool_.get(), cudaMemPoolAttrUsedMemHigh, &zero));
  RETORT_CALL(cudaDeviceSetGraphMemAttribute(device_, cudaGraphMemAttrUsedMemHigh, &zero));
}

void DeviceMemory::release_cached() {
  RETORT_CALL(cudaDeviceSynchronize());
  RETORT_CALL(cudaMemPoolTrimTo(pool_.get(), 0));
  RETORT_CALL(cudaDeviceGraphMemTrim(device_));
}

void DeviceMemory::begin_capture() {
  const std::scoped_lock lock(mutex_);
  recorder_ = std::this_thread::get_id();
  recording_ = true;
}

std::size_t DeviceMemory::end_capture() noexcept {
  const std::scoped_lock lock(mutex_);
  recording_ = false;
  recorder_ = {};
  for (const Deferred& free : deferred_) {
    if (cudaFreeAsync(free.data, free.stream) != cudaSuccess) cudaGetLastError();
  }
  deferred_.clear();
  std::size_t kept = 0;
  for (const auto& [data, size] : recorded_) {
    kept += size;
    abandoned_.insert(data);
  }
  recorded_.clear();
  has_abandoned_ = !abandoned_.empty();
  return kept;
}

std::string DeviceMemory::summary() const {
  const MemoryStats now = stats();
  return fmt::format("{} active, {} cached", now.active_bytes, now.cached_bytes);
}

}  // namespace retort::kernels
