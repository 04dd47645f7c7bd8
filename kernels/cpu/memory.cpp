#include <omp.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fstream>
#include <thread>

#include "kernels/cpu/backend.h"
#include "kernels/cpu/memory_pool.h"
#include "kernels/cpu/onednn.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

// One core cannot fill the memory bus: copies of at least this many bytes are shared among the threads.
constexpr std::size_t kParallelCopyFrom = std::size_t{1} << 20;

void copy_bytes(const void* from, void* to, std::size_t bytes) {
  if (bytes < kParallelCopyFrom || omp_in_parallel()) {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return;
  }
#pragma omp parallel
  {
    const auto threads = static_cast<std::size_t>(omp_get_num_threads());
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    const std::size_t piece = (bytes / threads + 63) / 64 * 64;
    const std::size_t begin = std::min(bytes, thread * piece);
    const std::size_t end = thread + 1 == threads ? bytes : std::min(bytes, begin + piece);
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, end - begin);
  }
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

class RecordedFunction : public Graph {
 public:
  explicit RecordedFunction(std::function<void()> work) : work_(std::move(work)) {}
  void replay(Stream) override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace

CpuBackend::CpuBackend() : pool_(std::make_unique<MemoryPool>()) {}
CpuBackend::~CpuBackend() = default;

std::unique_ptr<Backend> make_cpu_backend() {
  return std::make_unique<CpuBackend>();
}

Device CpuBackend::device() const {
  return {};
}

std::string CpuBackend::description() const {
  return fmt::format("{}, {} threads, oneDNN {}", processor_name(), omp_get_max_threads(), onednn::version());
}

void* CpuBackend::allocate(std::size_t bytes, Stream) {
  return pool_->allocate(bytes);
}
void CpuBackend::deallocate(void* data, std::size_t bytes, Stream) noexcept {
  pool_->deallocate(data, bytes);
}
MemoryStats CpuBackend::memory_stats() const {
  return pool_->stats();
}
void CpuBackend::reset_peak() {
  pool_->reset_peak();
}
void CpuBackend::release_cached() {
  pool_->release_cached();
}

void CpuBackend::copy_from_host(const void* host, View to, Stream) {
  copy_bytes(host, to.data, to.bytes());
}
void CpuBackend::copy_to_host(ConstView from, void* host, Stream) {
  copy_bytes(from.data, host, from.bytes());
}
void CpuBackend::copy(ConstView from, View to, Stream) {
  assert(from.dtype == to.dtype && from.numel() == to.numel());
  copy_bytes(from.data, to.data, to.bytes());
}

void CpuBackend::synchronize(Stream) {}
Stream CpuBackend::create_stream() {
  return {};
}
void CpuBackend::destroy_stream(Stream) noexcept {}
void CpuBackend::wait(Stream, Stream) {}

std::unique_ptr<Graph> CpuBackend::capture(Stream, const std::function<void()>& work) {
  return std::make_unique<RecordedFunction>(work);
}

}  // namespace retort::kernels
