// Device memory from CUDA's stream-ordered allocator, in a pool of our own (the libraries' allocations stay out of
// its figures). The pool never gives memory back by itself: a training step asks for the same sizes again.
//
// In a recording (begin_capture ... end_capture) an allocation on a recorded stream is a place in RecordedMemory that
// RecordingPool chooses: an address, and no node of the graph. It must be freed inside the recording. Memory from before
// it, freed inside, is held back until the recording ends: the graph may have recorded its address.
// RETORT_CUDA_SLABS=off: every block of a recording is an allocation of its own, whose end a checking tool can see.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/handle.h"
#include "kernels/cuda/recording_pool.h"
#include "kernels/kernels.h"

namespace retort::kernels {

// The slabs of a device's recordings, until the last of them is destroyed. All use the same ones: nothing that a
// recording allocates outlives a replay, and replay() lets them run one after the other.
class RecordedMemory {
 public:
  // Without `large` a slab is as long as what is asked for.
  RecordedMemory(cudaMemPool_t pool, bool large);
  ~RecordedMemory();
  RecordedMemory(const RecordedMemory&) = delete;
  RecordedMemory& operator=(const RecordedMemory&) = delete;

  // Allowed while a stream is being recorded. cudaErrorMemoryAllocation where the device is full.
  cudaError_t grow(std::size_t bytes, RecordingPool::Slab* slab);
  const std::vector<RecordingPool::Slab>& slabs() const { return slabs_; }
  // Waits until what grow() queued is done.
  void finish_growing();

  // Launches `exec` on `stream` behind all replays before it, on whatever stream they are.
  cudaError_t replay(cudaGraphExec_t exec, cudaStream_t stream);

 private:
  cudaMemPool_t pool_;
  bool large_;
  StreamHandle stream_;  // of the slabs
  EventHandle replayed_;
  std::vector<RecordingPool::Slab> slabs_;
  std::mutex replay_mutex_;
};

class DeviceMemory {
 public:
  explicit DeviceMemory(int device);

  // Never null. Throws Error when memory is exhausted, after having tried again with everything cached released.
  void* allocate(std::size_t bytes, cudaStream_t stream);
  void deallocate(void* data, cudaStream_t stream) noexcept;
  // The slabs of recordings count as active while there is a graph.
  MemoryStats stats() const;
  void reset_peak();
  // Waits for the device, then returns what is cached to it.
  void release_cached();

  // Records from the calling thread, into memory that the graph must own. end_capture returns how many bytes the
  // recording allocated and did not free.
  std::shared_ptr<RecordedMemory> begin_capture();
  std::size_t end_capture() noexcept;
  // `waiting` was made to wait for `on`. Without being told, a recording shares less memory between its streams.
  void wait(cudaStream_t waiting, cudaStream_t on);

  // "1024 bytes active, 0 cached", for messages.
  std::string summary() const;

 private:
  struct Deferred {
    void* data;
    cudaStream_t stream;
  };

  bool recording_here() const { return recording_ && recorder_ == std::this_thread::get_id(); }
  [[noreturn]] void fail_full(std::size_t bytes) const;

  int device_;
  bool large_slabs_ = true;
  PoolHandle pool_;
  std::atomic<bool> recording_ = false;
  std::atomic<bool> has_abandoned_ = false;
  std::mutex mutex_;  // what follows
  std::thread::id recorder_;
  std::weak_ptr<RecordedMemory> recorded_;
  std::optional<RecordingPool> recording_pool_;  // of the open recording
  std::vector<Deferred> deferred_;
  // Left over by a recording that was refused, with the slabs, whose addresses nobody may get before these are freed.
  std::unordered_map<void*, std::shared_ptr<RecordedMemory>> abandoned_;
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
