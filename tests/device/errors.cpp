// What every call goes through; errors and their names; calls that are to fail.
#include <unistd.h>

#include <cstdio>
#include <string_view>
#include <utility>

#include "tests/device/device.h"
#include "tests/device/standin.h"

namespace retort::standin {
namespace {

struct Failure {
  std::string name;
  std::int64_t first, last;  // counted from when it was asked for
  std::int64_t seen = 0;
};

struct State {
  std::map<std::string, std::int64_t> calls;
  std::vector<Failure> failures;
  cudaError_t lost = cudaSuccess;  // a "sticky" error: the context is gone, every call says so
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

thread_local cudaError_t t_last = cudaSuccess;

// What a call is likely to fail with.
cudaError_t likely_error(std::string_view name) {
  if (name.find("Malloc") != name.npos || name.find("Alloc") != name.npos || name == "cudaGraphUpload" ||
      name == "cudaGraphLaunch" || name == "cudaGraphInstantiateWithFlags" || name.find("Create") != name.npos) {
    return cudaErrorMemoryAllocation;
  }
  if (name.find("Synchronize") != name.npos) return cudaErrorLaunchFailure;
  if (name == "cudaLaunchKernel") return cudaErrorLaunchOutOfResources;
  if (name == "cudaGetDeviceCount") return cudaErrorNoDevice;
  if (name.find("Device") != name.npos) return cudaErrorInvalidDevice;
  return cudaErrorUnknown;
}

// Those that give something back do so in any case: "may also return error codes from previous, asynchronous launches".
bool gives_back(std::string_view name) {
  return name.find("Free") != name.npos || name.find("Destroy") != name.npos || name == "cudaStreamEndCapture" ||
         name == "cudaThreadExchangeStreamCaptureMode";
}

cudaError_t status_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Refusal& refusal) {
    return refusal.status;
  }
  return cudaSuccess;
}

struct Name {
  cudaError_t status;
  const char *name, *text;
};

constexpr Name kNames[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const Name& name_of(cudaError_t status) {
  for (const Name& name : kNames) {
    if (name.status == status) return name;
  }
  return kNames[std::size(kNames) - 1];
}

}  // namespace

void stop_with_finding(const std::string& text) {
  std::fflush(stdout);
  fmt::print(stderr, "standin: {}\n", text);
  std::fflush(stderr);
  _exit(kFindingExit);
}

bool call_fails(const char* function) {
  const std::scoped_lock lock(mutex());
  settings();  // which reads the environment
  ++state().calls[function];
  bool fails = false;
  for (Failure& failure : state().failures) {
    if (failure.name != "all" && failure.name != function) continue;
    ++failure.seen;
    fails = fails || (failure.seen >= failure.first && failure.seen <= failure.last);
  }
  return fails;
}

cudaError_t call(const char* name, const std::function<void()>& body) {
  const std::scoped_lock lock(mutex());
  const bool fails = call_fails(name);
  cudaError_t status = state().lost;
  if (gives_back(name) || (!fails && status == cudaSuccess)) {
    const cudaError_t own = status_of(body);
    if (status == cudaSuccess) status = own;
  }
  if (fails && status == cudaSuccess) status = likely_error(name);
  if (fails && status == cudaErrorLaunchFailure) state().lost = status;  // "sticky"
  if (status != cudaSuccess) t_last = status;
  return status;
}

void fail_calls(const std::string& name, std::int64_t nth, std::int64_t count) {
  const std::scoped_lock lock(mutex());
  state().failures.push_back({name, nth, nth + count - 1, 0});
}

void fail_no_calls() {
  const std::scoped_lock lock(mutex());
  state().failures.clear();
  state().lost = cudaSuccess;
}

std::map<std::string, std::int64_t> calls() {
  const std::scoped_lock lock(mutex());
  return state().calls;
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaGetLastError() {
  const std::scoped_lock lock(mutex());
  const cudaError_t status = std::exchange(t_last, state().lost);
  return status;
}
const char* cudaGetErrorName(cudaError_t status) {
  return name_of(status).name;
}
const char* cudaGetErrorString(cudaError_t status) {
  return name_of(status).text;
}
