#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::conv2d(ConstView, ConstView, ConstView, const ConvParams&, View, Stream) {
  fail("cpu: conv2d is not written yet");
}
void CpuBackend::conv2d_backward_data(ConstView, ConstView, const ConvParams&, View, Stream) {
  fail("cpu: conv2d_backward_data is not written yet");
}
void CpuBackend::conv2d_backward_weights(ConstView, ConstView, const ConvParams&, View, Stream) {
  fail("cpu: conv2d_backward_weights is not written yet");
}

}  // namespace retort::kernels
