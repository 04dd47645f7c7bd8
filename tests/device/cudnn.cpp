#include "tests/device/cudnn.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "tests/device/cudnn_descriptor.h"
#include "tests/device/cudnn_engines.h"
#include "tests/device/cudnn_program.h"
#include "tests/device/work.h"

namespace retort::standin {
namespace cudnn {
namespace {

// Names of descriptors and handles are never used twice, so one that was destroyed is known for what it is.
struct Library {
  std::mutex mutex;
  std::uintptr_t next = 16;
  std::unordered_map<void*, DescriptorRef> descriptors;
  std::unordered_map<void*, cudaStream_t> handles;
  std::vector<std::string> engines_run;

  void* new_name() { return reinterpret_cast<void*>(next += 16); }
};
Library& library() {
  static Library* const only = new Library;  // handles of static objects are destroyed later than it would be
  return *only;
}

thread_local std::string last_error;

DescriptorRef find(void* name) {
  const std::scoped_lock lock(library().mutex);
  const auto found = library().descriptors.find(name);
  require(found != library().descriptors.end(), CUDNN_STATUS_BAD_PARAM, "{} is no descriptor, or was destroyed", name);
  return found->second;
}

std::vector<DescriptorRef> find_all(cudnnBackendAttributeType_t type, std::int64_t count, const void* elements) {
  std::vector<DescriptorRef> list;
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR || elements == nullptr) return list;
  for (std::int64_t i = 0; i < count; ++i) {
    list.push_back(find(static_cast<const cudnnBackendDescriptor_t*>(elements)[i]));
  }
  return list;
}

cudaStream_t stream_of(cudnnHandle_t handle) {
  const std::scoped_lock lock(library().mutex);
  const auto found = library().handles.find(handle);
  require(found != library().handles.end(), CUDNN_STATUS_BAD_PARAM, "{} is no handle, or was destroyed",
          static_cast<void*>(handle));
  return found->second;
}

void check_alive(const Descriptor& d) {
  require(!d.destroyed, CUDNN_STATUS_BAD_PARAM, "a {} descriptor that a plan refers to was destroyed", name_of(d.type));
  for (const auto& [name, value] : d.values) {
    for (const DescriptorRef& part : value.parts) check_alive(*part);
  }
}

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto* const first = static_cast<const unsigned char*>(a);
  const auto* const second = static_cast<const unsigned char*>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

std::map<std::int64_t, void*> pointers_of(const Program& program, const Descriptor& pack) {
  const auto ids = pack.numbers(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto data = pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  std::map<std::int64_t, void*> pointers;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto known = program.tensors.find(ids[i]);
    require(known != program.tensors.end(), CUDNN_STATUS_BAD_PARAM, "the plan has no tensor {} in memory", ids[i]);
    const Tensor& t = known->second;
    require(data[i] != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "tensor {} is null", t.id);
    require(reinterpret_cast<std::uintptr_t>(data[i]) % static_cast<std::uintptr_t>(t.alignment) == 0,
            CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "tensor {} is at {}, not aligned to {} bytes", t.id, data[i],
            t.alignment);
    pointers.emplace(t.id, data[i]);
  }
  for (const auto& [id, t] : program.tensors) {
    require(pointers.contains(id), CUDNN_STATUS_BAD_PARAM, "the variant pack has no pointer for tensor {}", id);
  }
  const Tensor& result = program.output();
  for (const auto& [id, t] : program.tensors) {
    require(id == result.id || !overlap(pointers.at(id), t.bytes(), pointers.at(result.id), result.bytes()),
            CUDNN_STATUS_BAD_PARAM, "tensor {} and the result share memory", id);
  }
  return pointers;
}

cudnnStatus_t status_of(cudaError_t error) {
  if (error == cudaSuccess) return CUDNN_STATUS_SUCCESS;
  return error == cudaErrorMemoryAllocation ? CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
                                            : CUDNN_STATUS_EXECUTION_FAILED_CUDART;
}

void execute(cudnnHandle_t handle, void* plan_name, void* pack_name) {
  const cudaStream_t stream = stream_of(handle);
  const DescriptorRef plan = find(plan_name), pack = find(pack_name);
  require(plan->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && pack->type == CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
          CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "expected a plan and a variant pack, not {} and {}",
          name_of(plan->type), name_of(pack->type));
  require(plan->finalized && pack->finalized, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
          "the plan or the variant pack is not finalized");
  check_alive(*plan);
  const Program& program = *plan->program;
  const auto pointers = pointers_of(program, *pack);
  void* const workspace = pack->one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  require(program.workspace_bytes == 0 || workspace != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER,
          "engine {} needs {} bytes of workspace", program.engine->index, program.workspace_bytes);
  for (const auto& [id, t] : program.tensors) {
    require(!overlap(workspace, program.workspace_bytes, pointers.at(id), t.bytes()), CUDNN_STATUS_BAD_PARAM,
            "tensor {} and the workspace share memory", id);
  }
  require(program.engine->flaw != Flaw::cannot_run, CUDNN_STATUS_NOT_SUPPORTED, "engine {} cannot run here",
          program.engine->index);
  for (Piece& piece : pieces_of(plan->program, pointers, workspace)) {
    const cudaError_t error = enqueue(stream, fmt::format("cudnnBackendExecute (engine \"{}\")", program.engine->name),
                                      std::move(piece.accesses), std::move(piece.work));
    require(error == cudaSuccess, status_of(error), "the stream takes no work: {}", static_cast<int>(error));
  }
  const std::scoped_lock lock(library().mutex);
  library().engines_run.emplace_back(program.engine->name);
}

// Runs the body of an entry point: fails with `when_asked` where the tests ask for it, keeps the text of a refusal.
template <typename Body>
cudnnStatus_t entry(const char* function, cudnnStatus_t when_asked, Body body) {
  try {
    require(!call_fails(function), when_asked, "{} was asked to fail", function);
    body();
    return CUDNN_STATUS_SUCCESS;
  } catch (const Refusal& refusal) {
    last_error = refusal.text;
    return refusal.status;
  }
}

}  // namespace
}  // namespace cudnn

std::vector<std::string> take_engines_run() {
  const std::scoped_lock lock(cudnn::library().mutex);
  return std::exchange(cudnn::library().engines_run, {});
}
std::size_t live_cudnn_descriptors() {
  const std::scoped_lock lock(cudnn::library().mutex);
  return cudnn::library().descriptors.size();
}
std::size_t live_cudnn_handles() {
  const std::scoped_lock lock(cudnn::library().mutex);
  return cudnn::library().handles.size();
}

}  // namespace retort::standin

using namespace retort::standin::cudnn;

extern "C" {

std::size_t cudnnGetVersion() {
  return CUDNN_VERSION;
}

const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (CUDNN_STATUS_CATEGORY(static_cast<int>(status))) {
    case 0:
      return "CUDNN_STATUS_SUCCESS";
    case 1000:
      return "CUDNN_STATUS_NOT_INITIALIZED";
    case 2000:
      return "CUDNN_STATUS_BAD_PARAM";
    case 3000:
      return "CUDNN_STATUS_NOT_SUPPORTED";
    case 4000:
      return "CUDNN_STATUS_INTERNAL_ERROR";
    default:
      return "CUDNN_STATUS_EXECUTION_FAILED";
  }
}

void cudnnGetLastErrorString(char* message, std::size_t max_size) {
  if (max_size == 0) return;
  const std::size_t length = std::min(last_error.size(), max_size - 1);
  std::memcpy(message, last_error.data(), length);
  message[length] = '\0';
  last_error.clear();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return entry("cudnnCreate", CUDNN_STATUS_NOT_INITIALIZED, [&] {
    require(handle != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "nowhere to put the handle");
    const std::scoped_lock lock(library().mutex);
    void* const name = library().new_name();
    library().handles.emplace(name, nullptr);
    *handle = static_cast<cudnnHandle_t>(name);
  });
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  bool known = false;
  {
    const std::scoped_lock lock(library().mutex);
    known = library().handles.erase(handle) > 0;
  }
  return entry("cudnnDestroy", CUDNN_STATUS_EXECUTION_FAILED_CUDART,
               [&] { require(known, CUDNN_STATUS_BAD_PARAM, "no handle, or destroyed before"); });
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return entry("cudnnSetStream", CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH, [&] {
    stream_of(handle);
    const std::scoped_lock lock(library().mutex);
    library().handles[handle] = stream;
  });
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  return entry("cudnnBackendCreateDescriptor", CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, [&] {
    require(descriptor != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "nowhere to put the descriptor");
    require(name_of(type) != nullptr, CUDNN_STATUS_NOT_SUPPORTED, "no descriptors of type {}", static_cast<int>(type));
    const auto made = std::make_shared<Descriptor>();
    made->type = type;
    const std::scoped_lock lock(library().mutex);
    *descriptor = library().new_name();
    library().descriptors.emplace(*descriptor, made);
  });
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  bool known = false;
  {
    const std::scoped_lock lock(library().mutex);
    const auto found = library().descriptors.find(descriptor);
    known = found != library().descriptors.end();
    if (known) {
      found->second->destroyed = true;
      library().descriptors.erase(found);
    }
  }
  return entry("cudnnBackendDestroyDescriptor", CUDNN_STATUS_INTERNAL_ERROR,
               [&] { require(known, CUDNN_STATUS_BAD_PARAM, "no descriptor, or destroyed before"); });
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count, const void* elements) {
  return entry("cudnnBackendSetAttribute", CUDNN_STATUS_INTERNAL_ERROR, [&] {
    if (type == CUDNN_TYPE_HANDLE && elements != nullptr) stream_of(*static_cast<const cudnnHandle_t*>(elements));
    set_attribute(*find(descriptor), name, type, count, elements, find_all(type, count, elements));
  });
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t requested, std::int64_t* count,
                                       void* elements) {
  return entry("cudnnBackendGetAttribute", CUDNN_STATUS_INTERNAL_ERROR, [&] {
    get_attribute(*find(descriptor), name, type, requested, count, elements, find_all(type, requested, elements));
  });
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  return entry("cudnnBackendFinalize", CUDNN_STATUS_INTERNAL_ERROR, [&] { finalize(find(descriptor)); });
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  return entry("cudnnBackendExecute", CUDNN_STATUS_EXECUTION_FAILED, [&] { execute(handle, plan, pack); });
}

}  // extern "C"
