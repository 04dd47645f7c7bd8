// The stream that new work of this thread goes to, per device. The default is the device's null stream.
#pragma once

#include "kernels/kernels.h"

namespace retort {

using kernels::Stream;

Stream current_stream(Device device);

// Makes `stream` current for `device` while it lives.
class StreamGuard {
 public:
  StreamGuard(Device device, Stream stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Device device_;
  Stream previous_;
};

}  // namespace retort
