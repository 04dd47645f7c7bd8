#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::optimizer_step(const OptimizerArgs&, Stream) {
  fail("cpu: optimizer_step is not written yet");
}

}  // namespace retort::kernels
