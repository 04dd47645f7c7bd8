#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::augment(const AugmentParams&, ConstView, ConstView, ConstView, View, Stream) {
  fail("cpu: augment is not written yet");
}

}  // namespace retort::kernels
