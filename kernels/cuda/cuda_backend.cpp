#include "kernels/cuda/cuda_backend.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/convolution.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/native.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

class CudaGraph final : public Graph {
 public:
  CudaGraph(GraphExecHandle exec, std::shared_ptr<RecordedMemory> recorded)
      : recorded_(std::move(recorded)), exec_(std::move(exec)) {}

  void replay(Stream stream) override {
    check_call(recorded_->replay(exec_.get(), native(stream)), "cudaGraphLaunch(exec, stream)");
  }

 private:
  std::shared_ptr<RecordedMemory> recorded_;  // outlives exec_, which has its addresses
  GraphExecHandle exec_;
};

// Runs `work` between cudaStreamBeginCapture and cudaStreamEndCapture. When work throws, what was recorded so far is
// dropped and the exception goes on.
GraphHandle record(cudaStream_t stream, const std::function<void()>& work) {
  // Thread-local: other threads may go on allocating and copying.
  RETORT_CALL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    cudaGetLastError();
    const GraphHandle dropped(graph);
    throw;
  }
  const cudaError_t status = cudaStreamEndCapture(stream, &graph);
  GraphHandle result(graph);
  check_call(status, "cudaStreamEndCapture(stream, &graph)");
  return result;
}

}  // namespace

CudaBackend::CudaBackend(int index) : index_(index), description_(describe_device(index)) {
  use_device();
  memory_ = std::make_unique<DeviceMemory>(index);
  convolutions_ = std::make_unique<Convolutions>(*this, *memory_, description_);
  products_ = std::make_unique<MatrixProducts>(*memory_);
}

CudaBackend::~CudaBackend() = default;

void CudaBackend::use_device() const {
  RETORT_CALL(cudaSetDevice(index_));
}

void* CudaBackend::allocate(std::size_t bytes, Stream stream) {
  use_device();
  return memory_->allocate(bytes, native(stream));
}
void CudaBackend::deallocate(void* data, std::size_t, Stream stream) noexcept {
  if (data == nullptr) return;
  if (cudaSetDevice(index_) != cudaSuccess) cudaGetLastError();
  memory_->deallocate(data, native(stream));
}
MemoryStats CudaBackend::memory_stats() const {
  use_device();
  return memory_->stats();
}
void CudaBackend::reset_peak() {
  use_device();
  memory_->reset_peak();
}
void CudaBackend::release_cached() {
  use_device();
  memory_->release_cached();
}

void CudaBackend::copy_from_host(const void* host, View to, Stream stream) {
  use_device();
  if (to.bytes() == 0) return;
  check(!is_capturing(native(stream)), "cuda: copy_from_host cannot be recorded; copy before the capture");
  staging_.copy_to_device(host, to.data, to.bytes(), native(stream));
}
void CudaBackend::copy_to_host(ConstView from, void* host, Stream stream) {
  use_device();
  if (from.bytes() == 0) return;
  check(!is_capturing(native(stream)), "cuda: copy_to_host cannot be recorded; read results after the replay");
  RETORT_CALL(cudaMemcpyAsync(host, from.data, from.bytes(), cudaMemcpyDeviceToHost, native(stream)));
  RETORT_CALL(cudaStreamSynchronize(native(stream)));
}
void CudaBackend::copy(ConstView from, View to, Stream stream) {
  use_device();
  if (from.bytes() == 0) return;
  RETORT_CALL(cudaMemcpyAsync(to.data, from.data, from.bytes(), cudaMemcpyDeviceToDevice, native(stream)));
}

void CudaBackend::synchronize(Stream stream) {
  use_device();
  RETORT_CALL(cudaStreamSynchronize(native(stream)));
}

Stream CudaBackend::create_stream() {
  use_device();
  cudaStream_t stream = nullptr;
  // Non-blocking: with the default kind any work on the null stream would break a recording and order all streams.
  RETORT_CALL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  try {
    convolutions_->add_stream(stream);
    wait({stream}, {});
  } catch (...) {
    destroy_stream({stream});
    throw;
  }
  return {stream};
}
void CudaBackend::destroy_stream(Stream stream) noexcept {
  if (stream.handle == nullptr) return;
  convolutions_->remove_stream(native(stream));
  if (cudaStreamDestroy(native(stream)) != cudaSuccess) cudaGetLastError();
}

void CudaBackend::wait(Stream waiting, Stream on) {
  if (waiting.handle == on.handle) return;
  use_device();
  EventHandle event;
  RETORT_CALL(cudaEventCreateWithFlags(event.out(), cudaEventDisableTiming));
  RETORT_CALL(cudaEventRecord(event.get(), native(on)));
  RETORT_CALL(cudaStreamWaitEvent(native(waiting), event.get(), 0));
  memory_->wait(native(waiting), native(on));
}

std::unique_ptr<Graph> CudaBackend::capture(Stream stream, const std::function<void()>& work) {
  check(stream.handle != nullptr,
        "cuda: capture: the null stream cannot be recorded; make a stream of create_stream() current first");
  use_device();
  const std::scoped_lock lock(capture_mutex_);
  // A recording takes large slabs. What a warm-up step left in the pool, in its own pieces, would lie idle beside them.
  memory_->release_cached();
  std::shared_ptr<RecordedMemory> recorded = memory_->begin_capture();
  GraphHandle graph;
  try {
    graph = record(native(stream), work);
  } catch (...) {
    memory_->end_capture();
    throw;
  }
  const std::size_t kept = memory_->end_capture();
  check(kept == 0,
        "cuda: capture: the recorded work kept {} bytes that it allocated; free them inside, or allocate before", kept);
  recorded->finish_growing();
  GraphExecHandle exec;
  const cudaError_t status = cudaGraphInstantiateWithFlags(exec.out(), graph.get(), 0);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail("cuda: out of memory for a recorded step: {}; use a smaller batch", memory_->summary());
  }
  check_call(status, "cudaGraphInstantiateWithFlags(exec, graph, 0)");
  RETORT_CALL(cudaGraphUpload(exec.get(), native(stream)));
  return std::make_unique<CudaGraph>(std::move(exec), std::move(recorded));
}

void CudaBackend::matmul(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, Math math,
                         View y, Stream stream) {
  use_device();
  products_->run(a, transpose_a, b, transpose_b, bias, math, y, stream);
}
void CudaBackend::conv2d(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y,
                         Stream stream) {
  use_device();
  convolutions_->forward(x, w, epilogue, params, y, stream);
}
void CudaBackend::conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx, Stream stream) {
  use_device();
  convolutions_->backward_data(dy, w, params, false, dx, stream);
}
void CudaBackend::accumulate_conv2d_backward_data(ConstView dy, ConstView w, const ConvParams& params, View dx,
                                                  Stream stream) {
  use_device();
  convolutions_->backward_data(dy, w, params, true, dx, stream);
}
void CudaBackend::conv2d_backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream) {
  use_device();
  convolutions_->backward_weights(x, dy, params, dw, stream);
}

}  // namespace retort::kernels
