#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::fill(View, double, Stream) {
  fail("cpu: fill is not written yet");
}
void CpuBackend::convert(ConstView, View, Stream) {
  fail("cpu: convert is not written yet");
}
void CpuBackend::add(ConstView, ConstView, View, Stream) {
  fail("cpu: add is not written yet");
}
void CpuBackend::accumulate(ConstView, View, Stream) {
  fail("cpu: accumulate is not written yet");
}
void CpuBackend::scale(ConstView, double, View, Stream) {
  fail("cpu: scale is not written yet");
}
void CpuBackend::activation(ConstView, Activation, View, Stream) {
  fail("cpu: activation is not written yet");
}
void CpuBackend::activation_backward(ConstView, ConstView, Activation, View, Stream) {
  fail("cpu: activation_backward is not written yet");
}
void CpuBackend::square(ConstView, View, Stream) {
  fail("cpu: square is not written yet");
}
void CpuBackend::square_backward(ConstView, ConstView, View, Stream) {
  fail("cpu: square_backward is not written yet");
}
void CpuBackend::reciprocal_sqrt(ConstView, double, View, Stream) { fail("cpu: reciprocal_sqrt is not written yet"); }
void CpuBackend::dropout(ConstView, ConstView, ConstView, double, RandomKey, View, Stream) {
  fail("cpu: dropout is not written yet");
}

}  // namespace retort::kernels
