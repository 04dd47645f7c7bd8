// Devices described to cuDNN, for planning without one.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/error.h"

namespace retort::kernels {

// cuDNN's own JSON of cudaDeviceProp's values (9.8 and newer), with data-sheet values.
inline std::string device_json(int version, int multiprocessors, int shared_optin, int l2_bytes, const char* name) {
  return fmt::format(
      R"({{"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
      R"("multiProcessorCount":{},"warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":{},)"
      R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,)"
      R"("maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,"smClockRateKHz":1700000,)"
      R"("memClockRateKHz":2000000,"l2CacheSize":{},"deviceName":"{}","deviceVer":{},"driverVer":13000,)"
      R"("cudaDeviceId":0,"totalGlobalMem":85000000000}})",
      multiprocessors, shared_optin, l2_bytes, name, version);
}

struct DescribedDevice {
  const char* name;
  std::string json;
};

inline std::vector<DescribedDevice> described_devices() {
  return {{"H100", device_json(900, 132, 232448, 52428800, "NVIDIA H100 80GB HBM3")},
          {"A100", device_json(800, 108, 166912, 41943040, "NVIDIA A100-SXM4-80GB")}};
}

// Finalizes a DEVICEPROP descriptor; gives the reason where this cuDNN does not take the description.
inline std::string describe(const DescribedDevice& device, Descriptor& descriptor) {
  try {
    descriptor
        .set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<std::int64_t>(device.json.size()),
             device.json.data())
        .finalize();
    return "";
  } catch (const Error& error) {
    return std::string("this cuDNN does not take the description of a device: ") + error.what();
  }
}

}  // namespace retort::kernels
