// Kernels, and the work of the stand-in libraries.
#include <array>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "tests/device/capture.h"
#include "tests/device/kernel.h"
#include "tests/device/memory.h"
#include "tests/simt/simt.h"

namespace retort::standin {
namespace {

struct Kernel {
  const Signature* signature = nullptr;
  std::source_location where;  // it was launched last
};

std::unordered_map<const void*, Kernel>& kernels() {
  static auto* const instance = new std::unordered_map<const void*, Kernel>;
  return *instance;
}

std::string place(const std::source_location& where) {
  std::string_view file = where.file_name();
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos) file.remove_prefix(slash + 1);
  return fmt::format("the kernel launched at {}:{}", file, where.line());
}

// A launch's arguments as they were at the call.
struct Arguments {
  std::vector<std::max_align_t> memory;
  std::vector<void*> each;
  const Signature* signature;
  const void* kernel;
};

std::shared_ptr<Arguments> copy_arguments(const Signature& signature, const void* kernel, void** given) {
  auto copy = std::make_shared<Arguments>();
  copy->signature = &signature;
  copy->kernel = kernel;
  std::vector<std::size_t> offsets;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < signature.count; ++i) {
    const Parameter& parameter = signature.parameters[i];
    bytes = (bytes + parameter.alignment - 1) / parameter.alignment * parameter.alignment;
    offsets.push_back(bytes);
    bytes += parameter.bytes;
  }
  copy->memory.resize(bytes / sizeof(std::max_align_t) + 1);
  auto* const begin = reinterpret_cast<std::byte*>(copy->memory.data());
  for (std::size_t i = 0; i < signature.count; ++i) {
    copy->each.push_back(begin + offsets[i]);
    std::memcpy(begin + offsets[i], given[i], signature.parameters[i].bytes);
  }
  return copy;
}

// Every pointer to the device among the arguments, those within structs too.
std::vector<Use> uses_of(const Signature& signature, const Arguments& arguments) {
  std::vector<Use> uses;
  for (std::size_t i = 0; i < signature.count; ++i) {
    const Parameter& parameter = signature.parameters[i];
    for (std::size_t offset = 0; offset + sizeof(void*) <= parameter.bytes; offset += sizeof(void*)) {
      const std::byte* pointer = nullptr;
      std::memcpy(&pointer, static_cast<const std::byte*>(arguments.each[i]) + offset, sizeof pointer);
      if (parameter.kind == Parameter::Kind::value) {
        if (is_device_address(pointer)) uses.push_back({pointer, 0, Use::Mode::unknown});
      } else if (pointer != nullptr) {
        uses.push_back({pointer, 0, parameter.kind == Parameter::Kind::pointer ? Use::Mode::write : Use::Mode::read});
      }
    }
  }
  return uses;
}

bool is_possible(dim3 grid, dim3 block) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  return threads > 0 && threads <= 1024 && block.z <= 64 && grid.x > 0 && grid.x <= 0x7fffffffu && grid.y > 0 &&
         grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
}

}  // namespace

void introduce_kernel(const void* kernel, const Signature& signature, const std::source_location& where) {
  const std::scoped_lock lock(mutex());
  kernels()[kernel] = {&signature, where};
}

cudaError_t enqueue(cudaStream_t stream, std::string what, std::vector<Access> accesses, std::function<void()> work) {
  const std::scoped_lock lock(mutex());
  Operation operation{.kind = Kind::library, .what = std::move(what), .uses = {}, .run = std::move(work)};
  for (const Access& access : accesses) {
    if (access.bytes == 0) continue;
    operation.uses.push_back({static_cast<const std::byte*>(access.data), access.bytes,
                              access.written ? Use::Mode::write : Use::Mode::read});
  }
  try {
    submit(stream_of(stream), std::move(operation));
  } catch (const Refusal& refusal) {
    return refusal.status;
  }
  return cudaSuccess;
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t handle) {
  return call("cudaLaunchKernel", [&] {
    const auto found = kernels().find(kernel);
    if (found == kernels().end()) refuse(cudaErrorInvalidDeviceFunction);
    const auto [signature, where] = found->second;
    if (!is_possible(grid, block)) refuse(cudaErrorInvalidConfiguration);
    if (shared_bytes > 48 * 1024) refuse(cudaErrorInvalidValue);
    const std::shared_ptr<Arguments> copied = copy_arguments(*signature, kernel, arguments);
    Operation operation{.kind = Kind::kernel, .what = place(where), .uses = uses_of(*signature, *copied), .run = {}};
    operation.run = [=, site = where] {
      retort::simt::run(
          grid, block, shared_bytes, site,
          [](void* context) {
            const auto& a = *static_cast<const Arguments*>(context);
            a.signature->invoke(a.kernel, a.each.data());
          },
          copied.get());
    };
    submit(stream_of(handle), std::move(operation));
  });
}
