// Copies to the device through a few pinned buffers. The caller's memory is free again at once, nothing waits for
// the device while a buffer is free, and the small copies of every step (indices, learning rate) cost one memcpy.
// From pageable memory the driver would first wait for the stream.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>

#include "kernels/cuda/handle.h"

namespace retort::kernels {

class Staging {
 public:
  void copy_to_device(const void* host, void* device, std::size_t bytes, cudaStream_t stream);

 private:
  static constexpr std::size_t kSlots = 16;
  static constexpr std::size_t kSlotBytes = std::size_t{1} << 19;

  struct Slot {
    PinnedHandle memory;
    EventHandle copied;  // when the device has read the slot
  };

  std::mutex mutex_;
  std::array<Slot, kSlots> slots_;
  std::size_t next_ = 0;
};

}  // namespace retort::kernels
