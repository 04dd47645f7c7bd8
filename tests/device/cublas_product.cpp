#include "tests/device/cublas_product.h"

#include <atomic>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/bf16.h"
#include "tests/device/convolve.h"
#include "tests/device/numbers.h"
#include "tests/device/work.h"

namespace retort::standin {
namespace {

template <typename T>
T read_element(cudaDataType_t type, const void* data, std::int64_t index) {
  switch (type) {
    case CUDA_R_64F:
      return static_cast<T>(load<double>(data, index));
    case CUDA_R_32F:
      return static_cast<T>(load<float>(data, index));
    case CUDA_R_16BF:
      return static_cast<T>(static_cast<float>(load<bf16>(data, index)));
    default:
      return static_cast<T>(load<_Float16>(data, index));
  }
}
template <typename T>
void write_element(cudaDataType_t type, void* data, std::int64_t index, T value) {
  switch (type) {
    case CUDA_R_64F:
      return store(data, index, static_cast<double>(value));
    case CUDA_R_32F:
      return store(data, index, static_cast<float>(value));
    case CUDA_R_16BF:
      return store(data, index, bf16(static_cast<float>(value)));
    default:
      return store(data, index, static_cast<_Float16>(value));
  }
}

// What the multiplier makes of an input.
template <typename T>
T taken(cublasComputeType_t compute, T value) {
  if (compute == CUBLAS_COMPUTE_32F_FAST_TF32) return static_cast<T>(truncate_to_tf32(static_cast<float>(value)));
  if (compute == CUBLAS_COMPUTE_32F_FAST_16BF) return round_significand(value, 8);
  return value;
}

// op(A) op(B), column-major and dense.
template <typename T>
std::vector<T> sums_of(const Call& call) {
  const Problem& p = call.problem;
  std::vector<T> a(static_cast<std::size_t>(p.k * p.m)), b(static_cast<std::size_t>(p.n * p.k));  // [k, m], [n, k]
  for (std::int64_t l = 0; l < p.k; ++l) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      const std::int64_t at = p.transpose_a ? i * p.ld_a + l : l * p.ld_a + i;
      a[static_cast<std::size_t>(l * p.m + i)] = taken(p.compute, read_element<T>(p.type, call.a, at));
    }
    for (std::int64_t j = 0; j < p.n; ++j) {
      const std::int64_t at = p.transpose_b ? l * p.ld_b + j : j * p.ld_b + l;
      b[static_cast<std::size_t>(j * p.k + l)] = taken(p.compute, read_element<T>(p.type, call.b, at));
    }
  }
  std::vector<T> sums(static_cast<std::size_t>(p.m * p.n), T{});
  add_product<T>({b.data(), p.n, p.k, a.data(), p.k, p.m, sums.data(), p.m, p.m}, call.algorithm->terms);
  if (call.algorithm->scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE) {
    static std::atomic<std::uint32_t> runs{0};
    std::uint32_t state = 2654435761u * ++runs;
    for (T& sum : sums) {
      state = state * 1664525u + 1013904223u;
      sum *= T{1} + static_cast<T>(state >> 8) * static_cast<T>(0x1p-30);
    }
  }
  return sums;
}

template <typename T>
void finish(const Call& call, const std::vector<T>& sums) {
  const Problem& p = call.problem;
  for (std::int64_t j = 0; j < p.n; ++j) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      T value = static_cast<T>(call.alpha) * sums[static_cast<std::size_t>(j * p.m + i)];
      if (call.beta != 0) value += static_cast<T>(call.beta) * read_element<T>(p.type, call.c, j * p.ld_c + i);
      if (p.bias) value += read_element<T>(p.type, call.bias, i);
      write_element(p.type, call.d, j * p.ld_d + i, value);
    }
  }
}

template <typename T>
cudaError_t queue_in(const Call& call, cudaStream_t stream) {
  const Problem& p = call.problem;
  const auto what = std::string("cublasLtMatmul (algorithm \"") + call.algorithm->name + "\")";
  std::vector<Access> inputs{{call.a, call.a_bytes()}, {call.b, call.b_bytes()}};
  std::vector<Access> outputs{{call.d, call.bytes(p.m, p.n, p.ld_d), true}};
  if (call.beta != 0) outputs.push_back({call.c, call.bytes(p.m, p.n, p.ld_c), false});
  if (p.bias) outputs.push_back({call.bias, call.bytes(p.m, 1, p.m), false});
  if (call.workspace_bytes > 0) inputs.push_back({call.workspace, call.workspace_bytes, true});
  if (call.algorithm->scheme != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) {
    inputs.insert(inputs.end(), outputs.begin(), outputs.end());
    return enqueue(stream, what, std::move(inputs), [call] {
      fill_with_garbage(call.workspace, call.workspace_bytes);
      finish(call, sums_of<T>(call));
    });
  }
  // At the end of the workspace, so that all of it is needed.
  const std::size_t size = static_cast<std::size_t>(p.m * p.n) * sizeof(T);
  unsigned char* const place = static_cast<unsigned char*>(call.workspace) + call.workspace_bytes - size;
  outputs.push_back({call.workspace, call.workspace_bytes, true});
  const cudaError_t error = enqueue(stream, what, std::move(inputs), [call, place, size] {
    fill_with_garbage(call.workspace, call.workspace_bytes);
    std::memcpy(place, sums_of<T>(call).data(), size);
  });
  if (error != cudaSuccess) return error;
  return enqueue(stream, what, std::move(outputs), [call, place, size] {
    std::vector<T> sums(size / sizeof(T));
    std::memcpy(sums.data(), place, size);
    fill_with_garbage(call.workspace, call.workspace_bytes);
    finish(call, sums);
  });
}

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto* const first = static_cast<const unsigned char*>(a);
  const auto* const second = static_cast<const unsigned char*>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

}  // namespace

std::size_t size_of(cudaDataType_t type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
}

std::size_t workspace_of(const Algorithm& algorithm, const Problem& p) {
  const std::size_t sum = p.type == CUDA_R_64F ? sizeof(double) : sizeof(float);
  return algorithm.workspace_bytes + (algorithm.scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                          ? static_cast<std::size_t>(p.m * p.n) * sum
                                          : std::size_t{0});
}

bool lies_apart(const Call& call) {
  const Problem& p = call.problem;
  const std::size_t a = call.a_bytes(), b = call.b_bytes(), d = call.bytes(p.m, p.n, p.ld_d);
  bool apart = !overlap(call.a, a, call.d, d) && !overlap(call.b, b, call.d, d);
  if (call.c == call.d) apart = apart && p.ld_c == p.ld_d;
  for (const auto& [data, bytes] : {std::pair{call.a, a}, {call.b, b}, {static_cast<const void*>(call.d), d}}) {
    apart = apart && !overlap(call.workspace, call.workspace_bytes, data, bytes);
  }
  return apart;
}

cudaError_t queue(const Call& call, cudaStream_t stream) {
  return call.problem.type == CUDA_R_64F ? queue_in<double>(call, stream) : queue_in<float>(call, stream);
}

}  // namespace retort::standin
