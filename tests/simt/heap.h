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
  // Throws Error where a guard of a live allocation or freed memory was written to, naming `after` as the likely
  // culprit; what was found is mended, so that the next verify() reports only what is new.
  void verify(const std::string& after);
  kernels::MemoryStats stats() const;
  void reset_peak();

 private:
  struct Freed {
    unsigned char* data;
    std::size_t bytes;
  };
  void retire(Freed freed);

  mutable std::mutex mutex_;
  std::map<unsigned char*, std::size_t> live_;
  std::deque<Freed> freed_;
  std::size_t freed_bytes_ = 0;
  kernels::MemoryStats stats_;
  std::string complaint_;  // found where nothing could be thrown
};

Heap& heap();

}  // namespace retort::simt
