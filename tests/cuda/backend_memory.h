// Streams and memory of a backend for the length of a test.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace retort::test {

// Outlives the arrays declared behind it, which are freed on it.
class OwnStream {
 public:
  explicit OwnStream(kernels::Backend& backend) : backend_(backend), stream_(backend.create_stream()) {}
  ~OwnStream() { backend_.destroy_stream(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  operator kernels::Stream() const { return stream_; }  // NOLINT: is one

 private:
  kernels::Backend& backend_;
  kernels::Stream stream_;
};

class DeviceArray {
 public:
  DeviceArray(kernels::Backend& backend, DType dtype, const Shape& shape, kernels::Stream stream = {})
      : backend_(backend), stream_(stream), view_{nullptr, dtype, shape} {
    view_.data = backend.allocate(view_.bytes(), stream);
  }
  ~DeviceArray() { backend_.deallocate(view_.data, view_.bytes(), stream_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  const View& view() const { return view_; }
  // Of an f32 array.
  std::vector<float> read(kernels::Stream stream) const {
    std::vector<float> values(static_cast<std::size_t>(view_.numel()));
    backend_.copy_to_host(view_, values.data(), stream);
    return values;
  }
  std::vector<float> read() const { return read(stream_); }

 private:
  kernels::Backend& backend_;
  kernels::Stream stream_;
  View view_;
};

}  // namespace retort::test
