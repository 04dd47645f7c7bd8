#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::matmul(ConstView, bool, ConstView, bool, ConstView, Math, View, Stream) {
  fail("cpu: matmul is not written yet");
}

}  // namespace retort::kernels
