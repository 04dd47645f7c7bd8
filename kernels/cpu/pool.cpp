#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::max_pool(ConstView, const PoolParams&, View, View, Stream) {
  fail("cpu: max_pool is not written yet");
}
void CpuBackend::max_pool_backward(ConstView, ConstView, const PoolParams&, View, Stream) {
  fail("cpu: max_pool_backward is not written yet");
}
void CpuBackend::average_pool(ConstView, const PoolParams&, View, Stream) {
  fail("cpu: average_pool is not written yet");
}
void CpuBackend::average_pool_backward(ConstView, const PoolParams&, View, Stream) {
  fail("cpu: average_pool_backward is not written yet");
}
void CpuBackend::adaptive_average_pool(ConstView, View, Stream) {
  fail("cpu: adaptive_average_pool is not written yet");
}
void CpuBackend::adaptive_average_pool_backward(ConstView, View, Stream) {
  fail("cpu: adaptive_average_pool_backward is not written yet");
}

}  // namespace retort::kernels
