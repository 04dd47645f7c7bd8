#include "kernels/cpu/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>

#include "kernels/available_memory.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLargeFrom = std::size_t{1} << 20;   // requests from here on are large
constexpr std::size_t kMaxRequest = std::size_t{1} << 60;  // keeps the rounding below from overflowing
constexpr std::size_t kAskFrom = std::size_t{1} << 26;     // new blocks from here on ask what the machine has left

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

bool is_large(std::size_t block_bytes) {
  return block_bytes >= kHugePage;
}

// The block size that serves a request: at most 25 % more, for large ones 12.5 % more plus 2 MiB.
std::size_t block_size(std::size_t bytes) {
  if (bytes <= kAlignment) return kAlignment;
  const std::size_t octave = std::bit_floor(bytes);
  if (bytes < kLargeFrom) {
    const std::size_t block = round_up(bytes, std::max(kAlignment, octave / 4));
    return block;
  }
  return round_up(bytes, std::max(kHugePage, octave / 8));
}

// 2 MiB aligned anonymous memory; nullptr when there is none.
void* map_huge(std::size_t bytes) {
  void* const raw = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<std::uintptr_t>(raw);
  const std::uintptr_t aligned = round_up(start, kHugePage);
  if (aligned > start) munmap(raw, aligned - start);
  const std::uintptr_t tail = start + kHugePage - aligned;
  if (tail > 0) munmap(reinterpret_cast<void*>(aligned + bytes), tail);
  void* const block = reinterpret_cast<void*>(aligned);
  madvise(block, bytes, MADV_HUGEPAGE);  // a hint: ordinary pages work as well
  return block;
}

void* system_allocate(std::size_t block_bytes) {
  return is_large(block_bytes) ? map_huge(block_bytes) : std::aligned_alloc(kAlignment, block_bytes);
}

void system_free(void* block, std::size_t block_bytes) noexcept {
  if (is_large(block_bytes)) {
    munmap(block, block_bytes);
  } else {
    std::free(block);
  }
}

}  // namespace

MemoryPool::~MemoryPool() {
  release_cached_locked();
}

void* MemoryPool::take_cached(std::size_t block_bytes) {
  const std::size_t limit = is_large(block_bytes) ? 2 * block_bytes : block_bytes;
  for (auto it = free_.lower_bound(block_bytes); it != free_.end() && it->first <= limit; ++it) {
    if (it->second.empty()) continue;
    void* const block = it->second.back();
    it->second.pop_back();
    stats_.cached_bytes -= it->first;
    stats_.active_bytes += it->first;
    return block;
  }
  return nullptr;
}

void* MemoryPool::new_block(std::size_t block_bytes) {
  // Linux promises more than it has and ends the process later. Asking costs a file, so only what is large asks.
  if (block_bytes >= kAskFrom && stats_.cached_bytes > 0 && available_memory({}).value_or(SIZE_MAX) < block_bytes) {
    release_cached_locked();
  }
  void* block = system_allocate(block_bytes);
  if (block == nullptr) {
    release_cached_locked();
    block = system_allocate(block_bytes);
  }
  if (block == nullptr) return nullptr;
  if (is_large(block_bytes)) large_blocks_.emplace(block, block_bytes);
  stats_.active_bytes += block_bytes;
  return block;
}

void* MemoryPool::allocate(std::size_t bytes) {
  const std::scoped_lock lock(mutex_);
  void* block = nullptr;
  if (bytes <= kMaxRequest) {
    const std::size_t block_bytes = block_size(bytes);
    block = take_cached(block_bytes);
    if (block == nullptr) block = new_block(block_bytes);
  }
  check(block != nullptr,
        "cpu memory: {} bytes asked for, but memory is exhausted ({} bytes active, {} cached); use a smaller batch",
        bytes, stats_.active_bytes, stats_.cached_bytes);
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.active_bytes);
  return block;
}

void MemoryPool::deallocate(void* data, std::size_t bytes) noexcept {
  if (data == nullptr) return;
  const std::scoped_lock lock(mutex_);
  std::size_t block_bytes = block_size(bytes);
  if (is_large(block_bytes)) {
    const auto found = large_blocks_.find(data);
    if (found != large_blocks_.end()) block_bytes = found->second;
  }
  stats_.active_bytes -= block_bytes;
  try {
    free_[block_bytes].push_back(data);
    stats_.cached_bytes += block_bytes;
  } catch (...) {  // no memory for the list itself: give the block back
    large_blocks_.erase(data);
    system_free(data, block_bytes);
  }
}

MemoryStats MemoryPool::stats() const {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

void MemoryPool::reset_peak() {
  const std::scoped_lock lock(mutex_);
  stats_.peak_bytes = stats_.active_bytes;
}

void MemoryPool::release_cached() {
  const std::scoped_lock lock(mutex_);
  release_cached_locked();
}

void MemoryPool::release_cached_locked() noexcept {
  for (auto& [block_bytes, blocks] : free_) {
    for (void* block : blocks) {
      large_blocks_.erase(block);
      system_free(block, block_bytes);
    }
    blocks.clear();
  }
  stats_.cached_bytes = 0;
}

}  // namespace retort::kernels
