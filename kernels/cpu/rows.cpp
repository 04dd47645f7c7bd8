#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::softmax(ConstView, View, Stream) {
  fail("cpu: softmax is not written yet");
}
void CpuBackend::softmax_backward(ConstView, ConstView, View, Stream) {
  fail("cpu: softmax_backward is not written yet");
}
void CpuBackend::log_softmax(ConstView, View, Stream) {
  fail("cpu: log_softmax is not written yet");
}
void CpuBackend::log_softmax_backward(ConstView, ConstView, View, Stream) {
  fail("cpu: log_softmax_backward is not written yet");
}
void CpuBackend::l2_normalize(ConstView, double, View, View, Stream) {
  fail("cpu: l2_normalize is not written yet");
}
void CpuBackend::l2_normalize_backward(ConstView, ConstView, ConstView, double, View, Stream) {
  fail("cpu: l2_normalize_backward is not written yet");
}
void CpuBackend::cross_entropy(ConstView, ConstView, double, View, View, Stream) {
  fail("cpu: cross_entropy is not written yet");
}
void CpuBackend::cross_entropy_backward(ConstView, ConstView, ConstView, ConstView, double, View, Stream) {
  fail("cpu: cross_entropy_backward is not written yet");
}
void CpuBackend::accumulate_metrics(ConstView, ConstView, View, Stream) {
  fail("cpu: accumulate_metrics is not written yet");
}

}  // namespace retort::kernels
