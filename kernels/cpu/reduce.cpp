#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::sum(ConstView, double, View, Stream) {
  fail("cpu: sum is not written yet");
}
void CpuBackend::broadcast(ConstView, double, View, Stream) {
  fail("cpu: broadcast is not written yet");
}
void CpuBackend::sum_rows(ConstView, View, Stream) {
  fail("cpu: sum_rows is not written yet");
}
void CpuBackend::norm(ConstView, View, Stream) {
  fail("cpu: norm is not written yet");
}
void CpuBackend::accumulate_nonfinite(ConstView, View, Stream) {
  fail("cpu: accumulate_nonfinite is not written yet");
}

}  // namespace retort::kernels
