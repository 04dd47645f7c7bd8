// What an operation graph computes, read from its descriptors: geometry, steps, tensors. Evaluated naively on the CPU.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "tests/device/cudnn_descriptor.h"
#include "tests/device/work.h"

namespace retort::standin::cudnn {

using Extents = std::array<std::int64_t, 4>;  // N, C, H, W; of a filter K, C, R, S

struct Tensor {
  std::int64_t id = 0;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  Extents dims{}, strides{};
  std::int64_t alignment = 1;
  bool is_virtual = false;

  std::int64_t numel() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  std::size_t bytes() const;  // from the first element to the end of the last
  bool operator==(const Tensor&) const = default;
};
std::size_t size_of(cudnnDataType_t type);  // 0 for types that cannot be computed with
Tensor read_tensor(const Descriptor& descriptor);

struct Convolution {
  cudnnBackendDescriptorType_t direction{};
  Tensor x, w, y;  // by their roles in the forward pass
  std::array<std::int64_t, 2> stride{}, pre{}, post{}, dilation{};
  std::int64_t groups = 1;
  bool flip = false;  // CUDNN_CONVOLUTION turns the filter by 180 degrees
  double alpha = 1, beta = 0;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;

  const Tensor& result() const;
};
// Checks the operation as cudnnBackendFinalize does.
Convolution read_convolution(const Descriptor& operation);

struct Pointwise {
  cudnnPointwiseMode_t mode{};
  double lower = 0, upper = 0, slope = 0;
  double alpha_x = 1, alpha_b = 1;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  bool has_b = false;
  Tensor x, b, y;
};
Pointwise read_pointwise(const Descriptor& operation);

// A graph that the engines know: one convolution, then a chain of pointwise operations.
struct Program {
  Convolution convolution;
  std::vector<Pointwise> steps;
  std::map<std::int64_t, Tensor> tensors;  // those in memory, by id
  const Engine* engine = nullptr;
  std::size_t workspace_bytes = 0;

  const Tensor& output() const { return steps.empty() ? convolution.result() : steps.back().y; }
};
// Checks how the operations hang together. Refuses with NOT_SUPPORTED_GRAPH_PATTERN what is no such program.
Program read_program(const Descriptor& graph);

// What has to be done on the stream, in this order.
struct Piece {
  std::vector<Access> accesses;
  std::function<void()> work;
};
// `pointers`: of every tensor in memory, by id.
std::vector<Piece> pieces_of(std::shared_ptr<const Program> program, const std::map<std::int64_t, void*>& pointers,
                             void* workspace);

}  // namespace retort::standin::cudnn
