#include "kernels/cpu/backend.h"
#include "kernels/error.h"

namespace retort::kernels {

Device CpuBackend::device() const {
  fail("cpu: device is not written yet");
}
std::string CpuBackend::description() const {
  fail("cpu: description is not written yet");
}
void* CpuBackend::allocate(std::size_t, Stream) {
  fail("cpu: allocate is not written yet");
}
void CpuBackend::deallocate(void*, std::size_t, Stream) noexcept {}
MemoryStats CpuBackend::memory_stats() const {
  fail("cpu: memory_stats is not written yet");
}
void CpuBackend::reset_peak() {
  fail("cpu: reset_peak is not written yet");
}
void CpuBackend::release_cached() {
  fail("cpu: release_cached is not written yet");
}
void CpuBackend::copy_from_host(const void*, View, Stream) {
  fail("cpu: copy_from_host is not written yet");
}
void CpuBackend::copy_to_host(ConstView, void*, Stream) {
  fail("cpu: copy_to_host is not written yet");
}
void CpuBackend::copy(ConstView, View, Stream) {
  fail("cpu: copy is not written yet");
}
void CpuBackend::synchronize(Stream) {
  fail("cpu: synchronize is not written yet");
}
Stream CpuBackend::create_stream() {
  fail("cpu: create_stream is not written yet");
}
void CpuBackend::destroy_stream(Stream) noexcept {}
void CpuBackend::wait(Stream, Stream) {
  fail("cpu: wait is not written yet");
}
std::unique_ptr<Graph> CpuBackend::capture(Stream, const std::function<void()>&) {
  fail("cpu: capture is not written yet");
}

}  // namespace retort::kernels
