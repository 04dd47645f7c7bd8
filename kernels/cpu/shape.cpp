#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

void CpuBackend::copy_rows(ConstView, std::int64_t, View, std::int64_t, std::int64_t, std::int64_t, Stream) {
  fail("cpu: copy_rows is not written yet");
}
void CpuBackend::gather(ConstView, ConstView, View, Stream) {
  fail("cpu: gather is not written yet");
}

}  // namespace retort::kernels
