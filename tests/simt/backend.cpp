#include "tests/simt/backend.h"

#include <cstring>

#include "kernels/cuda/direct_convolution.h"
#include "kernels/error.h"
#include "tests/simt/heap.h"

namespace retort::simt {
namespace {

using kernels::Stream;

// Work runs at once, so what is recorded is the function itself.
class FunctionGraph final : public kernels::Graph {
 public:
  explicit FunctionGraph(std::function<void()> work) : work_(std::move(work)) {}
  void replay(Stream) override { work_(); }

 private:
  std::function<void()> work_;
};

kernels::Backend& library() {
  return kernels::backend({});
}

}  // namespace

Device SimtBackend::device() const {
  return {DeviceType::cuda, 0};
}
std::string SimtBackend::description() const {
  return "CUDA kernels run on the CPU, thread by thread";
}

void* SimtBackend::allocate(std::size_t bytes, Stream) {
  return heap().allocate(bytes);
}
void SimtBackend::deallocate(void* data, std::size_t bytes, Stream) noexcept {
  heap().deallocate(data, bytes);
}
kernels::MemoryStats SimtBackend::memory_stats() const {
  return heap().stats();
}
void SimtBackend::reset_peak() {
  heap().reset_peak();
}
void SimtBackend::release_cached() {}

void SimtBackend::copy_from_host(const void* host, View to, Stream) {
  if (to.bytes() > 0) std::memcpy(to.data, host, to.bytes());
  heap().verify("copy_from_host");
}
void SimtBackend::copy_to_host(ConstView from, void* host, Stream) {
  heap().verify("copy_to_host");
  if (from.bytes() > 0) std::memcpy(host, from.data, from.bytes());
}
void SimtBackend::copy(ConstView from, View to, Stream) {
  check(from.dtype == to.dtype && from.numel() == to.numel(), "simt: copy from {} {} to {} {}", name_of(from.dtype),
        from.shape.to_string(), name_of(to.dtype), to.shape.to_string());
  if (to.bytes() > 0) std::memcpy(to.data, from.data, to.bytes());
  heap().verify("copy");
}
void SimtBackend::synchronize(Stream) {
  heap().verify("synchronize");
}
Stream SimtBackend::create_stream() {
  return {new char};
}  // a handle of its own, as on a device
void SimtBackend::destroy_stream(Stream stream) noexcept {
  delete static_cast<char*>(stream.handle);
}
void SimtBackend::wait(Stream, Stream) {}
std::unique_ptr<kernels::Graph> SimtBackend::capture(Stream, const std::function<void()>& work) {
  return std::make_unique<FunctionGraph>(work);
}

void SimtBackend::matmul(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias,
                         kernels::Math math, View y, Stream) {
  library().matmul(a, transpose_a, b, transpose_b, bias, math, y, {});
  heap().verify("matmul");
}
// The convolution by the library, what follows it by our own kernel: as where cuDNN has no engine that does both.
void SimtBackend::conv2d(ConstView x, ConstView w, const kernels::ConvEpilogue& epilogue,
                         const kernels::ConvParams& params, View y, Stream stream) {
  library().conv2d(x, w, {}, params, y, {});
  if (!epilogue.empty()) kernels::bias_residual_activation(epilogue, y, stream);
  heap().verify("conv2d");
}
void SimtBackend::conv2d_backward_data(ConstView dy, ConstView w, const kernels::ConvParams& params, View dx, Stream) {
  library().conv2d_backward_data(dy, w, params, dx, {});
  heap().verify("conv2d_backward_data");
}
void SimtBackend::conv2d_backward_weights(ConstView x, ConstView dy, const kernels::ConvParams& params, View dw,
                                          Stream) {
  library().conv2d_backward_weights(x, dy, params, dw, {});
  heap().verify("conv2d_backward_weights");
}

kernels::CudaProvider simt_provider() {
  return {[] { return 1; }, [] { return std::string("the SIMT device is always there"); },
          [](int) -> std::unique_ptr<kernels::Backend> { return std::make_unique<SimtBackend>(); }};
}

}  // namespace retort::simt

#ifdef RETORT_SIMT_WITHOUT_AUGMENT  // until kernels/cuda/augment.cu is there
void retort::kernels::CudaKernels::augment(const AugmentParams& params, ConstView images, ConstView indices,
                                           ConstView epoch, View out, Stream stream) {
  backend({}).augment(params, images, indices, epoch, out, stream);
}
#endif
