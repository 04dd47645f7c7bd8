// The memory of the SIMT device. Every allocation starts as NaN (all bits one) and lies between guard zones; freed
// memory turns NaN and is kept a while. A broken guard or a write to freed memory is an Error at the next verify(),
// which run() calls after every launch. Under AddressSanitizer an access outside is reported where it happens.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <string>

#include "kernels/kernels.h"

namespace retort::simt {

inline constexpr unsigned char kPoison = 0xff;  // NaN in every floating type
inline constexpr std::size_t kGuardBytes = 64;

// A guard zone holds a NaN too (0x7ff7...), but another one, so that a copied poison does not pass for it.
void write_guard(void* at, std::size_t bytes);
bool guard_is_whole(const void* at, std::size_t bytes);  // always true under AddressSanitizer, which has seen it
void lift_guard(void* at, std::size_t bytes);            // makes the zone ordinary memory for AddressSanitizer

class Heap {
 public:
  void* allocate(std::size_t bytes);
  void deallocate(void* data, std::size_t bytes) noexcept;
  // Whether `data` lies in a live allocation or in MappedMemory, or just behind it.
  bool owns(const void* data) const;
  // Throws Error where a guard of a live allocation or freed memory was written to, naming `after` as the likely
  // culprit; what was found is mended, so that the next verify() reports only what is new.
  void verify(const std::string& after);
  kernels::MemoryStats stats() const;
  void reset_peak();

 private:
  friend class MappedMemory;
  struct Freed {
    unsigned char* data;
    std::size_t bytes;
  };
  void retire(Freed freed);

  mutable std::mutex mutex_;
  std::map<unsigned char*, std::size_t> live_;
  std::map<unsigned char*, std::size_t> mapped_;
  std::deque<Freed> freed_;
  std::size_t freed_bytes_ = 0;
  kernels::MemoryStats stats_;
  std::string complaint_;  // found where nothing could be thrown
};

Heap& heap();

// Device memory of any size: zero, only what is written takes room, and around it lies as much as an index that has
// overflowed can reach where every access ends the process.
class MappedMemory {
 public:
  explicit MappedMemory(std::size_t bytes);  // throws Error where the system has no such address space
  ~MappedMemory();
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;
  void* data() const { return data_; }

 private:
  std::size_t whole_;
  unsigned char *base_, *data_;
};

}  // namespace retort::simt
