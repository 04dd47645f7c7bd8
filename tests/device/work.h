// What the stand-in libraries (cuDNN, cuBLASLt) need of the stand-in device: to queue work on a stream, and to know
// when a call is to fail.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace retort::standin {

// Memory of the device that a piece of work reads or writes.
struct Access {
  const void* data = nullptr;
  std::size_t bytes = 0;
  bool written = false;
};

// Queues `work` on `stream`, after all that was queued there, or records it as a node while the stream is being
// captured. `what` names it in messages. When it runs, every range of `accesses` must lie within one live allocation
// of the device whose allocation is ordered before the work and whose free is ordered behind it; anything else stops
// the process with a line that names `what`. Returns what the CUDA call would: success, or for example
// cudaErrorStreamCaptureInvalidated.
cudaError_t enqueue(cudaStream_t stream, std::string what, std::vector<Access> accesses, std::function<void()> work);

// Counts one call of a function of a CUDA library by its name, and says whether this one is to fail (the tests ask for
// the n-th call of all, or of one name, to fail).
bool call_fails(const char* function);

}  // namespace retort::standin
