#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/check.h"

namespace retort::kernels {

void Staging::copy_to_device(const void* host, void* device, std::size_t bytes, cudaStream_t stream) {
  const std::scoped_lock lock(mutex_);
  for (std::size_t done = 0; done < bytes;) {
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % kSlots;
    if (!slot.memory) {
      RETORT_CALL(cudaHostAlloc(slot.memory.out(), kSlotBytes, cudaHostAllocDefault));
      RETORT_CALL(cudaEventCreateWithFlags(slot.copied.out(), cudaEventDisableTiming));
    } else {
      RETORT_CALL(cudaEventSynchronize(slot.copied.get()));
    }
    const std::size_t piece = std::min(bytes - done, kSlotBytes);
    std::memcpy(slot.memory.get(), static_cast<const std::byte*>(host) + done, piece);
    RETORT_CALL(cudaMemcpyAsync(static_cast<std::byte*>(device) + done, slot.memory.get(), piece,
                                cudaMemcpyHostToDevice, stream));
    RETORT_CALL(cudaEventRecord(slot.copied.get(), stream));
    done += piece;
  }
}

}  // namespace retort::kernels
