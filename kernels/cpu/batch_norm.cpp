#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::batch_norm_training(ConstView, ConstView, ConstView, ConstView, double, double, Activation, View, View,
                                     View, View, View, View, Stream) {
  fail("cpu: batch_norm_training is not written yet");
}
void CpuBackend::batch_norm_inference(ConstView, ConstView, ConstView, ConstView, ConstView, ConstView, double,
                                      Activation, View, Stream) {
  fail("cpu: batch_norm_inference is not written yet");
}
void CpuBackend::batch_norm_backward(ConstView, ConstView, ConstView, ConstView, ConstView, ConstView, Activation, bool,
                                     View, View, View, View, Stream) {
  fail("cpu: batch_norm_backward is not written yet");
}

}  // namespace retort::kernels
