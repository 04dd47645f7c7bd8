#include "kernels/cuda/memory.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string_view>

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

// Larger pieces are slabs of their own.
constexpr std::size_t kSlabBytes = std::size_t{16} << 20;
constexpr std::size_t kSlabGranularity = std::size_t{2} << 20;  // of the device's own memory pages

}  // namespace

RecordedMemory::RecordedMemory(cudaMemPool_t pool, bool large) : pool_(pool), large_(large) {
  RETORT_CALL(cudaStreamCreateWithFlags(stream_.out(), cudaStreamNonBlocking));
  RETORT_CALL(cudaEventCreateWithFlags(replayed_.out(), cudaEventDisableTiming));
}

RecordedMemory::~RecordedMemory() {
  // A failure here has no remedy: the device is lost, or the process is ending.
  static_cast<void>(cudaStreamWaitEvent(stream_.get(), replayed_.get(), 0));
  for (const RecordingPool::Slab& slab : slabs_) static_cast<void>(cudaFreeAsync(slab.data, stream_.get()));
  cudaGetLastError();
}

cudaError_t RecordedMemory::grow(std::size_t bytes, RecordingPool::Slab* slab) {
  const RelaxedCapture relaxed;
  const std::size_t pages = (bytes + kSlabGranularity - 1) / kSlabGranularity * kSlabGranularity;
  slab->bytes = large_ ? std::max(pages, kSlabBytes) : bytes;
  const cudaError_t status = cudaMallocFromPoolAsync(&slab->data, slab->bytes, pool_, stream_.get());
  if (status == cudaSuccess) slabs_.push_back(*slab);
  return status;
}

void RecordedMemory::finish_growing() {
  RETORT_CALL(cudaStreamSynchronize(stream_.get()));
}

cudaError_t RecordedMemory::replay(cudaGraphExec_t exec, cudaStream_t stream) {
  const std::scoped_lock lock(replay_mutex_);
  cudaError_t status = cudaStreamWaitEvent(stream, replayed_.get(), 0);
  if (status == cudaSuccess) status = cudaGraphLaunch(exec, stream);
  if (status == cudaSuccess) status = cudaEventRecord(replayed_.get(), stream);
  return status;
}

DeviceMemory::DeviceMemory(int device) : device_(device) {
  const char* const slabs = std::getenv("RETORT_CUDA_SLABS");
  large_slabs_ = slabs == nullptr || std::string_view(slabs) != "off";
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  RETORT_CALL(cudaMemPoolCreate(pool_.out(), &properties));
  std::uint64_t threshold = std::numeric_limits<std::uint64_t>::max();
  RETORT_CALL(cudaMemPoolSetAttribute(pool_.get(), cudaMemPoolAttrReleaseThreshold, &threshold));
}

void DeviceMemory::fail_full(std::size_t bytes) const {
  cudaGetLastError();
  fail("cuda:{}: out of memory: {} bytes asked for, {}; use a smaller batch", device_, bytes, summary());
}

void* DeviceMemory::allocate(std::size_t bytes, cudaStream_t stream) {
  const std::size_t size = std::max<std::size_t>(bytes, 1);
  if (recording_ && is_capturing(stream)) {
    const std::scoped_lock lock(mutex_);
    return recording_pool_->allocate(size, stream);
  }
  void* data = nullptr;
  cudaError_t status = cudaMallocFromPoolAsync(&data, size, pool_.get(), stream);
  if (status == cudaErrorMemoryAllocation && !recording_) {  // a recording must not wait for the device
    cudaGetLastError();
    release_cached();
    status = cudaMallocFromPoolAsync(&data, size, pool_.get(), stream);
  }
  if (status == cudaErrorMemoryAllocation) fail_full(size);
  check_call(status, "cudaMallocFromPoolAsync(&data, size, pool, stream)");
  return data;
}

void DeviceMemory::deallocate(void* data, cudaStream_t stream) noexcept {
  if (recording_ || has_abandoned_) {
    const std::scoped_lock lock(mutex_);
    if (abandoned_.erase(data) != 0) {
      has_abandoned_ = !abandoned_.empty();
      return;
    }
    if (recording_ && recording_pool_->deallocate(data, stream)) return;
    if (recording_here()) {
      deferred_.push_back({data, stream});
      return;
    }
  }
  // A failure here has no remedy: the device is lost, or the process is ending.
  if (cudaFreeAsync(data, stream) != cudaSuccess) cudaGetLastError();
}

MemoryStats DeviceMemory::stats() const {
  MemoryStats stats;
  stats.active_bytes = pool_attribute(pool_.get(), cudaMemPoolAttrUsedMemCurrent);
  stats.peak_bytes = pool_attribute(pool_.get(), cudaMemPoolAttrUsedMemHigh);
  const std::size_t reserved = pool_attribute(pool_.get(), cudaMemPoolAttrReservedMemCurrent);
  stats.cached_bytes = reserved - std::min(reserved, stats.active_bytes);
  return stats;
}

void DeviceMemory::reset_peak() {
  std::uint64_t zero = 0;
  RETORT_CALL(cudaMemPoolSetAttribute(pool_.get(), cudaMemPoolAttrUsedMemHigh, &zero));
}

void DeviceMemory::release_cached() {
  RETORT_CALL(cudaDeviceSynchronize());
  RETORT_CALL(cudaMemPoolTrimTo(pool_.get(), 0));
}

std::shared_ptr<RecordedMemory> DeviceMemory::begin_capture() {
  const std::scoped_lock lock(mutex_);
  std::shared_ptr<RecordedMemory> recorded = recorded_.lock();
  if (!recorded) recorded_ = recorded = std::make_shared<RecordedMemory>(pool_.get(), large_slabs_);
  const auto grow = [this, memory = recorded.get()](std::size_t bytes) {
    RecordingPool::Slab slab;
    const cudaError_t status = memory->grow(bytes, &slab);
    if (status == cudaErrorMemoryAllocation) fail_full(bytes);
    check_call(status, "cudaMallocFromPoolAsync(&slab, bytes, pool, stream)");
    return slab;
  };
  recording_pool_.emplace(recorded->slabs(), grow, large_slabs_);
  recorder_ = std::this_thread::get_id();
  recording_ = true;
  return recorded;
}

void DeviceMemory::wait(cudaStream_t waiting, cudaStream_t on) {
  if (!recording_) return;
  const std::scoped_lock lock(mutex_);
  if (recording_) recording_pool_->wait(waiting, on);
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
  for (const RecordingPool::Slab& left : recording_pool_->live()) {
    kept += left.bytes;
    abandoned_.emplace(left.data, recorded_.lock());
  }
  if (kept > 0) recorded_.reset();  // the next recording must not get these places
  recording_pool_.reset();
  has_abandoned_ = !abandoned_.empty();
  return kept;
}

std::string DeviceMemory::summary() const {
  const MemoryStats now = stats();
  return fmt::format("{} active, {} cached", now.active_bytes, now.cached_bytes);
}

}  // namespace retort::kernels
