// Copies, fills and pinned memory. Of memory that is pinned, a copy reads and writes when it runs; from pageable memory
// it reads at the call, and into it the call returns when the copy is done ("API synchronization behavior").
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/device/capture.h"
#include "tests/device/memory.h"
#include "tests/simt/heap.h"

namespace retort::standin {
namespace {

// By the first byte: how many.
std::map<const std::byte*, std::size_t>& pinned() {
  static auto* const instance = new std::map<const std::byte*, std::size_t>;
  return *instance;
}

void check_direction(const void* to, const void* from, cudaMemcpyKind kind) {
  const bool to_device = is_device_address(to), from_device = is_device_address(from);
  const bool right = (kind == cudaMemcpyHostToDevice && to_device && !from_device) ||
                     (kind == cudaMemcpyDeviceToHost && !to_device && from_device) ||
                     (kind == cudaMemcpyDeviceToDevice && to_device && from_device);
  if (!right) {
    finding("cudaMemcpyAsync: kind {} from {} memory to {} memory", static_cast<int>(kind),
            from_device ? "device" : "host", to_device ? "device" : "host");
  }
}

// A copy's range in pinned memory must lie in one piece of it.
void check_pinned(const void* host, std::size_t bytes) {
  const auto found = std::prev(pinned().upper_bound(static_cast<const std::byte*>(host)));
  const std::size_t offset = static_cast<std::size_t>(static_cast<const std::byte*>(host) - found->first);
  if (offset + bytes > found->second)
    finding("cudaMemcpyAsync: {} bytes from byte {} of {} pinned ones", bytes, offset, found->second);
}

void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, Stream& stream) {
  check_direction(to, from, kind);
  Operation operation{.kind = Kind::copy, .what = fmt::format("a copy of {} bytes", bytes)};
  if (kind != cudaMemcpyDeviceToHost) {
    operation.uses.push_back({static_cast<const std::byte*>(to), bytes, Use::Mode::write});
  }
  if (kind != cudaMemcpyHostToDevice) {
    operation.uses.push_back({static_cast<const std::byte*>(from), bytes, Use::Mode::read});
  }
  const void* const host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : nullptr;
  const bool pageable = host != nullptr && !is_pinned(host);
  if (host != nullptr && !pageable) check_pinned(host, bytes);
  if (pageable && kind == cudaMemcpyHostToDevice && stream.capture == nullptr) {
    const auto* const first = static_cast<const std::byte*>(from);
    operation.run = [staged = std::make_shared<std::vector<std::byte>>(first, first + bytes), to] {
      std::memcpy(to, staged->data(), staged->size());
    };
  } else {
    operation.run = [to, from, bytes] { std::memmove(to, from, bytes); };
  }
  submit(stream, std::move(operation));
  if (pageable && kind == cudaMemcpyDeviceToHost && stream.capture == nullptr) synchronize(stream);
}

}  // namespace

bool is_pinned(const void* host) {
  const auto next = pinned().upper_bound(static_cast<const std::byte*>(host));
  if (next == pinned().begin()) return false;
  const auto& [begin, bytes] = *std::prev(next);
  return static_cast<const std::byte*>(host) < begin + bytes;
}

std::size_t pinned_count() {
  return pinned().size();
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaHostAlloc(void** host, size_t bytes, unsigned) {
  return call("cudaHostAlloc", [&] {
    check_unsafe_call();
    auto* const data = static_cast<std::byte*>(std::malloc(bytes));
    if (data == nullptr) refuse(cudaErrorMemoryAllocation);
    std::memset(data, retort::simt::kPoison, bytes);
    pinned().emplace(data, bytes);
    *host = data;
  });
}

// It waits for the device first, as page tables change.
cudaError_t cudaFreeHost(void* host) {
  return call("cudaFreeHost", [&] {
    if (host == nullptr) return;
    check_unsafe_call();
    if (pinned().erase(static_cast<std::byte*>(host)) == 0) {
      finding("cudaFreeHost: not memory of cudaHostAlloc, or freed before");
    }
    synchronize_all();
    std::free(host);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call("cudaMemcpyAsync", [&] {
    Stream& on = stream_of(stream);
    if (bytes > 0) copy(to, from, bytes, kind, on);
  });
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  return call("cudaMemsetAsync", [&] {
    Stream& on = stream_of(stream);
    if (bytes == 0) return;
    submit(on, {.kind = Kind::fill,
                .what = fmt::format("a fill of {} bytes", bytes),
                .uses = {{static_cast<const std::byte*>(data), bytes, Use::Mode::write}},
                .run = [=] { std::memset(data, value, bytes); }});
  });
}
