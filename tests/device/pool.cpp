// Memory in stream order: pools, allocations, frees.
#include <algorithm>
#include <limits>
#include <unordered_set>

#include "tests/device/capture.h"
#include "tests/device/memory.h"

namespace retort::standin {
namespace {

struct Pool {
  FreeBlocks blocks;
  std::uint64_t reserved = 0, reserved_high = 0, used = 0, used_high = 0, threshold = 0;

  void trim(std::size_t keep) {
    const std::size_t dropped = blocks.trim(reserved, keep);
    reserved -= dropped;
    unreserve(dropped);
  }
};

// Pools live on after their destruction, until nothing is left in them.
std::vector<std::unique_ptr<Pool>>& pools() {
  static auto* const instance = new std::vector<std::unique_ptr<Pool>>;
  return *instance;
}
std::unordered_set<const Pool*>& destroyed_pools() {
  static auto* const instance = new std::unordered_set<const Pool*>;
  return *instance;
}

Pool& pool_of(cudaMemPool_t handle) {
  return *reinterpret_cast<Pool*>(handle);
}

std::shared_ptr<Block> take_block(Pool& pool, std::size_t bytes, const Clock& clock) {
  if (auto block = pool.blocks.take(bytes, clock)) return block;
  reserve(capacity_for(bytes));
  pool.reserved += capacity_for(bytes);
  pool.reserved_high = std::max(pool.reserved_high, pool.reserved);
  return make_block(bytes);
}

void* allocate(Pool& pool, std::size_t bytes, Stream& stream) {
  const auto work =
      next_work(stream, {.kind = Kind::allocation, .what = fmt::format("an allocation of {} bytes", bytes)});
  const auto block = take_block(pool, bytes, work->clock);
  const auto allocation = bring_to_life(block, bytes, {work->at, work->clock, work->what, stream.name});
  allocation->pool = reinterpret_cast<cudaMemPool_t>(&pool);
  pool.used += block->capacity;
  pool.used_high = std::max(pool.used_high, pool.used);
  set_allocation(*work, allocation);
  queue(work);
  return block->data;
}

void free(void* data, Stream& stream) {
  const auto allocation = find_allocation(data);
  if (allocation == nullptr || allocation->block->data != data) {
    finding("cudaFreeAsync on {}: not an allocation of this device, or freed before", stream.name);
  }
  if (allocation->capture != nullptr) {
    finding("cudaFreeAsync on {}: the allocation is being recorded on another stream", stream.name);
  }
  const auto work =
      next_work(stream, {.kind = Kind::free, .what = fmt::format("the free of {} bytes", allocation->bytes)});
  end_life(allocation, {work->at, work->clock, work->what, stream.name});
  const std::shared_ptr<Block> block = allocation->block;
  if (allocation->pool != nullptr) {
    Pool& pool = pool_of(allocation->pool);
    pool.used -= block->capacity;
    block->freed = work->at;
    block->settled = false;
    pool.blocks.put(block);
  }
  set_free(*work, allocation);
  queue(work);
}

std::uint64_t attribute(const Pool& pool, cudaMemPoolAttr name) {
  switch (name) {
    case cudaMemPoolAttrReleaseThreshold:
      return pool.threshold;
    case cudaMemPoolAttrReservedMemCurrent:
      return pool.reserved;
    case cudaMemPoolAttrReservedMemHigh:
      return pool.reserved_high;
    case cudaMemPoolAttrUsedMemCurrent:
      return pool.used;
    case cudaMemPoolAttrUsedMemHigh:
      return pool.used_high;
    default:
      refuse(cudaErrorInvalidValue);
  }
}

}  // namespace

void release_above_threshold() {
  for (const auto& pool : pools()) {
    if (destroyed_pools().contains(pool.get())) pool->trim(0);
    if (pool->reserved > pool->threshold) pool->trim(pool->threshold);
  }
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return call("cudaMemPoolCreate", [&] {
    if (properties->allocType != cudaMemAllocationTypePinned ||
        properties->location.type != cudaMemLocationTypeDevice || properties->location.id != 0) {
      refuse(cudaErrorInvalidValue);
    }
    pools().push_back(std::make_unique<Pool>());
    *pool = reinterpret_cast<cudaMemPool_t>(pools().back().get());
  });
}

// "If any pointers obtained from this pool haven't been freed or the pool has free operations that haven't completed when
// cudaMemPoolDestroy is invoked, the function will return immediately and the resources will be released" later.
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return call("cudaMemPoolDestroy", [&] {
    pool_of(pool).trim(0);
    destroyed_pools().insert(&pool_of(pool));
  });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t handle, cudaMemPoolAttr name, void* value) {
  return call("cudaMemPoolSetAttribute", [&] {
    Pool& pool = pool_of(handle);
    const std::uint64_t number = *static_cast<std::uint64_t*>(value);
    const bool high = name == cudaMemPoolAttrUsedMemHigh || name == cudaMemPoolAttrReservedMemHigh;
    if (!high && name != cudaMemPoolAttrReleaseThreshold) refuse(cudaErrorInvalidValue);
    if (high && number != 0) refuse(cudaErrorInvalidValue);  // "illegal to set this attribute to a non-zero value"
    if (name == cudaMemPoolAttrReleaseThreshold) pool.threshold = number;
    if (name == cudaMemPoolAttrUsedMemHigh) pool.used_high = pool.used;
    if (name == cudaMemPoolAttrReservedMemHigh) pool.reserved_high = pool.reserved;
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr name, void* value) {
  return call("cudaMemPoolGetAttribute", [&] { *static_cast<std::uint64_t*>(value) = attribute(pool_of(pool), name); });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep) {
  return call("cudaMemPoolTrimTo", [&] { pool_of(pool).trim(keep); });
}

cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t pool, cudaStream_t handle) {
  return call("cudaMallocFromPoolAsync", [&] {
    *data = nullptr;
    if (bytes == 0) refuse(cudaErrorInvalidValue);
    if (destroyed_pools().contains(&pool_of(pool))) finding("cudaMallocFromPoolAsync: the pool was destroyed");
    Stream& stream = stream_of(handle);
    check_legacy_use(stream);
    *data = stream.capture != nullptr ? record_allocation(stream, bytes) : allocate(pool_of(pool), bytes, stream);
  });
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t handle) {
  return call("cudaFreeAsync", [&] {
    Stream& stream = stream_of(handle);
    check_legacy_use(stream);
    if (stream.capture != nullptr) {
      record_free(stream, data);
    } else {
      free(data, stream);
    }
  });
}
