// What the device says of itself: an H100's figures, where they matter, and a name that tells what it is.
#include <algorithm>
#include <cstring>

#include "tests/device/device.h"
#include "tests/device/memory.h"

using namespace retort::standin;

namespace {

void check_device(int device) {
  if (device != 0) refuse(cudaErrorInvalidDevice);
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  return call("cudaGetDeviceCount", [&] { *count = 1; });
}
cudaError_t cudaGetDevice(int* device) {
  return call("cudaGetDevice", [&] { *device = 0; });
}
cudaError_t cudaSetDevice(int device) {
  return call("cudaSetDevice", [&] { check_device(device); });
}
cudaError_t cudaDriverGetVersion(int* version) {
  return call("cudaDriverGetVersion", [&] { *version = CUDART_VERSION; });
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  return call("cudaRuntimeGetVersion", [&] { *version = CUDART_VERSION; });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call("cudaMemGetInfo", [&] {
    *total = settings().memory;
    *free = settings().memory - std::min(settings().memory, reserved());
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call("cudaGetDeviceProperties", [&] {
    check_device(device);
    *properties = {};
    std::strncpy(properties->name, "stand-in for an NVIDIA H100", sizeof properties->name - 1);
    properties->totalGlobalMem = settings().memory;
    properties->major = 9;
    properties->minor = 0;
    properties->multiProcessorCount = settings().multiprocessors;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->regsPerBlock = 65536;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int device) {
  return call("cudaDeviceGetAttribute", [&] {
    check_device(device);
    switch (name) {
      case cudaDevAttrMultiProcessorCount:
        *value = settings().multiprocessors;
        break;
      case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        break;
      case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
      case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
      case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 * 1024;
        break;
      default:
        refuse(cudaErrorInvalidValue);
    }
  });
}
