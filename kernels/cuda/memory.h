// Device memory from CUDA's stream-ordered allocator, in a pool of our own (the libraries' allocations stay out of
// its figures). The pool never gives memory back by itself: a training step asks for the same sizes again.
//
// In a recording (begin_capture ... end_capture) an allocation on a recorded stream becomes a node of the graph. Such
// memory belongs to the graph and must be freed inside the recording. Memory from before it, freed inside, is held
// back until the recording ends: the graph may have recorded its address.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kernels/cuda/handle.h"
#include "kernels/kernels.h"

namespace retort::kernels {

class DeviceMemory {
 public:
  explicit DeviceMemory(int device);

  // Never null. Throws Error when memory is exhausted, after having tried again with everything cached released.
  void* allocate(std::size_t bytes, cudaStream_t stream);
  void deallocate(void* data, cudaStream_t stream) noexcept;
  // Pool and graphs together. The two keep their peaks apart, so peak_bytes is their sum and may exceed the true
  // peak where graphs and eager work peaked at different times.
  MemoryStats stats() const;
  void reset_peak();
  // Waits for the device, then returns what is cached to it.
  void release_cached();

  // Records from the calling thread. end_capture returns how many bytes the recording allocated and did not free.
  void begin_capture();
  std::size_t end_capture() noexcept;

  // "1024 bytes active, 0 cached", for messages.
  std::string summary() const;

 private:
  struct Deferred {
    void* data;
    cudaStream_t stream;
  };

  bool recording_here() const { return recording_ && recorder_ == std::this_thread::get_id(); }

  int device_;
  PoolHandle pool_;
  std::atomic<bool> recording_ = false;
  std::atomic<bool> has_abandoned_ = false;
  std::mutex mutex_;  // what follows
  std::thread::id recorder_;
  std::unordered_map<void*, std::size_t> recorded_;  // allocated in the open recording
  std::vector<Deferred> deferred_;
  std::unordered_set<void*> abandoned_;  // left over by a recording that was refused: their graph is gone
};

// Device memory for the length of a scope, in stream order.
class ScratchMemory {
 public:
  ScratchMemory(DeviceMemory& memory, std::size_t bytes, cudaStream_t stream)
      : memory_(memory), stream_(stream), data_(bytes == 0 ? nullptr : memory.allocate(bytes, stream)) {}
  ~ScratchMemory() {
    if (data_ != nullptr) memory_.deallocate(data_, stream_);
  }
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  void* data() const { return data_; }

 private:
  DeviceMemory& memory_;
  cudaStream_t stream_;
  void* data_;
};

}  // namespace retort::kernels
