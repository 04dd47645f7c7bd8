// Memory of the stand-in device for tests of its libraries, by CUDA's own calls.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/bf16.h"

namespace retort::standin {

inline void expect_success(cudaError_t status) {
  EXPECT_EQ(status, cudaSuccess);
}

// A stream and a pool for the memory used on it.
class DeviceStream {
 public:
  DeviceStream() {
    expect_success(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    expect_success(cudaMemPoolCreate(&pool_, &properties));
  }
  ~DeviceStream() {
    expect_success(cudaStreamSynchronize(stream_));
    expect_success(cudaMemPoolDestroy(pool_));
    expect_success(cudaStreamDestroy(stream_));
  }
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  cudaStream_t get() const { return stream_; }
  cudaMemPool_t pool() const { return pool_; }

 private:
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
};

class DeviceBytes {
 public:
  DeviceBytes(const DeviceStream& stream, std::size_t bytes) : stream_(stream.get()), bytes_(bytes) {
    if (bytes > 0) expect_success(cudaMallocFromPoolAsync(&data_, bytes, stream.pool(), stream_));
  }
  ~DeviceBytes() {
    if (data_ != nullptr) expect_success(cudaFreeAsync(data_, stream_));
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void* data(std::size_t offset = 0) const { return static_cast<char*>(data_) + offset; }
  void write(const std::vector<unsigned char>& bytes, std::size_t offset = 0) {
    expect_success(cudaMemcpyAsync(data(offset), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream_));
    expect_success(cudaStreamSynchronize(stream_));
  }
  std::vector<unsigned char> read() const {
    std::vector<unsigned char> bytes(bytes_);
    expect_success(cudaMemcpyAsync(bytes.data(), data_, bytes_, cudaMemcpyDeviceToHost, stream_));
    expect_success(cudaStreamSynchronize(stream_));
    return bytes;
  }

 private:
  cudaStream_t stream_;
  std::size_t bytes_;
  void* data_ = nullptr;
};

enum class Number { f64, f32, bf16, f16 };

inline std::size_t size_of(Number type) {
  return type == Number::f64 ? 8 : type == Number::f32 ? 4 : 2;
}

inline std::vector<unsigned char> encode(Number type, const std::vector<double>& values) {
  std::vector<unsigned char> bytes(values.size() * size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto put = [&](auto value) { std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value); };
    if (type == Number::f64) put(values[i]);
    if (type == Number::f32) put(static_cast<float>(values[i]));
    if (type == Number::bf16) put(retort::bf16(static_cast<float>(values[i])));
    if (type == Number::f16) put(static_cast<_Float16>(values[i]));
  }
  return bytes;
}

inline std::vector<double> decode(Number type, const std::vector<unsigned char>& bytes) {
  std::vector<double> values(bytes.size() / size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto get = [&](auto value) {
      std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
      return value;
    };
    if (type == Number::f64) values[i] = get(double{});
    if (type == Number::f32) values[i] = get(float{});
    if (type == Number::bf16) values[i] = get(retort::bf16{});
    if (type == Number::f16) values[i] = static_cast<double>(get(_Float16{}));
  }
  return values;
}

// Values in [-1, 1) as the type can hold them.
inline std::vector<double> random_values(Number type, std::int64_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = uniform(generator);
  return decode(type, encode(type, values));
}

}  // namespace retort::standin
