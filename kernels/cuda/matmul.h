// Matrix products through cuBLASLt. The algorithm for a shape is the first that its heuristics propose and that runs:
// a function of shape, device and library alone. Partial sums are reduced in a separate step in the compute type, so
// the result does not depend on timing. Nothing is measured: products are a small part of a convolutional network.
#pragma once

#include <mutex>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/gemm_layout.h"
#include "kernels/cuda/handle.h"
#include "kernels/cuda/memory.h"

namespace retort::kernels {

class MatrixProducts {
 public:
  explicit MatrixProducts(DeviceMemory& memory);

  // Backend::matmul.
  void run(ConstView a, bool transpose_a, ConstView b, bool transpose_b, ConstView bias, Math math, View y,
           Stream stream);

 private:
  static constexpr std::size_t kWorkspaceLimit = std::size_t{32} << 20;

  struct Key {
    ColumnMajorProduct product;
    DType dtype;
    Math math;
    bool bias;
    std::int64_t alignment;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  // Algorithms to try, best first; the first one that has run is the only one left.
  struct Algorithms {
    std::vector<cublasLtMatmulHeuristicResult_t> list;
    bool proven = false;
  };

  DeviceMemory& memory_;
  CublasLtHandle handle_;
  std::mutex mutex_;
  std::unordered_map<Key, Algorithms, KeyHash> algorithms_;
};

}  // namespace retort::kernels
