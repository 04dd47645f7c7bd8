#include "engine/stream.h"

#include <array>

namespace retort {
namespace {

Stream& slot(Device device) {
  thread_local std::array<Stream, 17> streams{};  // the CPU's and 16 CUDA devices'
  return streams[device.is_cpu() ? 0 : static_cast<std::size_t>(device.index) % 16 + 1];
}

}  // namespace

Stream current_stream(Device device) {
  return slot(device);
}

StreamGuard::StreamGuard(Device device, Stream stream) : device_(device), previous_(slot(device)) {
  slot(device) = stream;
}
StreamGuard::~StreamGuard() {
  slot(device_) = previous_;
}

}  // namespace retort
