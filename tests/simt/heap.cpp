#include "tests/simt/heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace retort::simt {
namespace {

constexpr unsigned char kGuard[2] = {0xf7, 0x7f};
constexpr std::size_t kAlignment = 256;    // what cudaMalloc gives
constexpr std::size_t kLead = kAlignment;  // the guard zone before an allocation
constexpr std::size_t kKeepFreedBytes = 16 * 1024 * 1024;

#ifndef __SANITIZE_ADDRESS__  // which watches freed memory itself
bool is_poison(const unsigned char* at, std::size_t bytes) {
  return bytes == 0 || (at[0] == kPoison && std::memcmp(at, at + 1, bytes - 1) == 0);
}
#endif

unsigned char guard_byte(std::uintptr_t address) {
  return kGuard[address % 2];
}

}  // namespace

void write_guard(void* at, std::size_t bytes) {
  auto* p = static_cast<unsigned char*>(at);
  lift_guard(at, bytes);
  for (std::size_t i = 0; i < bytes; ++i) p[i] = guard_byte(reinterpret_cast<std::uintptr_t>(p + i));
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(at, bytes);
#endif
}

bool guard_is_whole([[maybe_unused]] const void* at, [[maybe_unused]] std::size_t bytes) {
#ifndef __SANITIZE_ADDRESS__
  const auto* p = static_cast<const unsigned char*>(at);
  // The first two bytes, and each like the one two before it: memcmp is much the fastest loop.
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes, 2); ++i) {
    if (p[i] != guard_byte(reinterpret_cast<std::uintptr_t>(p + i))) return false;
  }
  if (bytes > 2 && std::memcmp(p, p + 2, bytes - 2) != 0) return false;
#endif
  return true;
}

void lift_guard([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(at, bytes);
#endif
}

void* Heap::allocate(std::size_t bytes) {
  const std::size_t whole = (kLead + bytes + kGuardBytes + kAlignment - 1) / kAlignment * kAlignment;
  auto* base = static_cast<unsigned char*>(std::aligned_alloc(kAlignment, whole));
  const std::scoped_lock lock(mutex_);
  check(base != nullptr, "simt: out of memory: {} bytes asked for, {} active", bytes, stats_.active_bytes);
  unsigned char* data = base + kLead;
  write_guard(base, kLead);
  std::memset(data, kPoison, bytes);
  write_guard(data + bytes, kGuardBytes);
  live_.emplace(data, bytes);
  stats_.active_bytes += bytes;
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.active_bytes);
  return data;
}

void Heap::deallocate(void* data, std::size_t bytes) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto found = live_.find(static_cast<unsigned char*>(data));
  if (found == live_.end() || found->second != bytes) {
    complaint_ = fmt::format("deallocate({}, {}): {}", data, bytes,
                             found == live_.end() ? "not an allocation of this device, or freed before"
                                                  : fmt::format("the allocation has {} bytes", found->second));
    return;
  }
  unsigned char* p = found->first;
  if (!guard_is_whole(p - kLead, kLead) || !guard_is_whole(p + bytes, kGuardBytes)) {
    complaint_ = fmt::format("an allocation of {} bytes was freed with broken guard zones", bytes);
  }
  live_.erase(found);
  stats_.active_bytes -= bytes;
  std::memset(p, kPoison, bytes);
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(p, bytes);
#endif
  freed_.push_back({p, bytes});
  freed_bytes_ += bytes;
  while (freed_bytes_ > kKeepFreedBytes) {
    retire(freed_.front());
    freed_.pop_front();
  }
}

bool Heap::owns(const void* data) const {
  const std::scoped_lock lock(mutex_);
  auto* const p = static_cast<unsigned char*>(const_cast<void*>(data));
  for (const auto* ranges : {&live_, &mapped_}) {
    const auto next = ranges->upper_bound(p);
    if (next != ranges->begin() && p <= std::prev(next)->first + std::prev(next)->second) return true;
  }
  return false;
}

void Heap::retire(Freed freed) {
#ifndef __SANITIZE_ADDRESS__
  if (!is_poison(freed.data, freed.bytes))
    complaint_ = fmt::format("an allocation of {} bytes was written to after it was freed", freed.bytes);
#endif
  freed_bytes_ -= freed.bytes;
  lift_guard(freed.data - kLead, kLead + freed.bytes + kGuardBytes);
  std::free(freed.data - kLead);
}

void Heap::verify(const std::string& after) {
  const std::scoped_lock lock(mutex_);
  if (!complaint_.empty()) {
    const std::string text = std::exchange(complaint_, "");
    fail("simt: {} (found after {})", text, after);
  }
  for (const auto& [data, bytes] : live_) {
    const bool before = guard_is_whole(data - kLead, kLead), behind = guard_is_whole(data + bytes, kGuardBytes);
    if (before && behind) continue;
    write_guard(data - kLead, kLead);
    write_guard(data + bytes, kGuardBytes);
    fail("simt: {}: wrote {} an allocation of {} bytes", after, before ? "behind" : "before", bytes);
  }
#ifndef __SANITIZE_ADDRESS__
  // The youngest only: what a launch can have freed just before.
  std::size_t looked_at = 0;
  for (auto freed = freed_.rbegin(); freed != freed_.rend() && looked_at < 64 * 1024; ++freed) {
    looked_at += freed->bytes;
    if (is_poison(freed->data, freed->bytes)) continue;
    std::memset(freed->data, kPoison, freed->bytes);
    fail("simt: {}: wrote to an allocation of {} bytes that had been freed", after, freed->bytes);
  }
#endif
}

kernels::MemoryStats Heap::stats() const {
  const std::scoped_lock lock(mutex_);
  kernels::MemoryStats stats = stats_;
  stats.cached_bytes = freed_bytes_;
  return stats;
}

void Heap::reset_peak() {
  const std::scoped_lock lock(mutex_);
  stats_.peak_bytes = stats_.active_bytes;
}

Heap& heap() {
  static auto* const instance = new Heap;
  return *instance;
}

MappedMemory::MappedMemory(std::size_t bytes) {
  constexpr std::size_t kAround = std::size_t{1} << 34, kPage = 4096;  // 2^31 elements of 8 bytes
  const std::size_t inside = (bytes + kPage - 1) / kPage * kPage;
  whole_ = 2 * kAround + inside;
  void* const base = mmap(nullptr, whole_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(base != MAP_FAILED, "simt: cannot map {} bytes", whole_);
  base_ = static_cast<unsigned char*>(base);
  data_ = base_ + kAround + inside - (bytes + 255) / 256 * 256;  // ends, but for its alignment, where the mapping does
  check(mprotect(base_ + kAround, inside, PROT_READ | PROT_WRITE) == 0, "simt: cannot map {} bytes", whole_);
  const std::scoped_lock lock(heap().mutex_);
  heap().mapped_.emplace(data_, bytes);
}
MappedMemory::~MappedMemory() {
  {
    const std::scoped_lock lock(heap().mutex_);
    heap().mapped_.erase(data_);
  }
  munmap(base_, whole_);
}

}  // namespace retort::simt
