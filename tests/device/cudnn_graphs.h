// For tests of the stand-in for cuDNN: descriptors set by hand, graphs of a convolution and what follows, plans.
#pragma once

#include <cudnn.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace retort::standin {

using Four = std::array<std::int64_t, 4>;  // N, C, H, W, or K, C, R, S
using Two = std::array<std::int64_t, 2>;

class RawDescriptor {
 public:
  explicit RawDescriptor(cudnnBackendDescriptorType_t type) {
    EXPECT_EQ(cudnnBackendCreateDescriptor(type, &raw_), CUDNN_STATUS_SUCCESS);
  }
  ~RawDescriptor() { destroy(); }
  RawDescriptor(const RawDescriptor&) = delete;
  RawDescriptor& operator=(const RawDescriptor&) = delete;

  template <typename T>
  cudnnStatus_t set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const std::vector<T>& values) {
    return cudnnBackendSetAttribute(raw_, name, type, static_cast<std::int64_t>(values.size()), values.data());
  }
  cudnnStatus_t set(cudnnBackendAttributeName_t name, const std::vector<std::int64_t>& values) {
    return set(name, CUDNN_TYPE_INT64, values);
  }
  cudnnStatus_t set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    return set(name, CUDNN_TYPE_DATA_TYPE, std::vector{value});
  }
  cudnnStatus_t set(cudnnBackendAttributeName_t name, const RawDescriptor& part) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::vector{part.get()});
  }
  cudnnStatus_t finalize() { return cudnnBackendFinalize(raw_); }
  void destroy() {
    if (raw_ == nullptr) return;
    EXPECT_EQ(cudnnBackendDestroyDescriptor(raw_), CUDNN_STATUS_SUCCESS);
    raw_ = nullptr;
  }
  cudnnBackendDescriptor_t get() const { return raw_; }

 private:
  cudnnBackendDescriptor_t raw_ = nullptr;
};

inline Four channels_last_strides(const Four& d) {
  return {d[1] * d[2] * d[3], 1, d[3] * d[1], d[1]};
}
inline Four channels_first_strides(const Four& d) {
  return {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1};
}

struct TensorSpec {
  std::int64_t id = 1;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  Four dims{}, strides{};
  std::int64_t alignment = 16;
  bool is_virtual = false;
};

struct ConvSpec {
  enum Direction { forward, data, weights } direction = forward;
  Two stride{1, 1}, pre{0, 0}, post{0, 0}, dilation{1, 1};
  cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  double alpha = 1, beta = 0;
  TensorSpec x, w, y;  // by their roles in the forward pass
};

struct StepSpec {
  cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
  std::vector<TensorSpec> b;  // none or one
  TensorSpec y;
  std::map<cudnnBackendAttributeName_t, double> clips;
};

// A graph from its specification; status is that of the first call that failed.
class GraphOf {
 public:
  explicit GraphOf(const ConvSpec& conv, const std::vector<StepSpec>& steps = {}) {
    std::vector<cudnnBackendDescriptor_t> operations{convolution(conv)};
    TensorSpec last = conv.direction == ConvSpec::forward ? conv.y : conv.direction == ConvSpec::data ? conv.x : conv.w;
    for (const StepSpec& step : steps) {
      operations.push_back(pointwise(step, last, conv.compute));
      last = step.y;
    }
    graph_ = &part(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    note(graph_->set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations));
    note(graph_->finalize());
  }

  cudnnStatus_t status() const { return status_; }
  const std::string& error() const { return error_; }
  RawDescriptor& graph() { return *graph_; }
  RawDescriptor& tensor(std::int64_t id) { return *tensors_.at(id); }

 private:
  RawDescriptor& part(cudnnBackendDescriptorType_t type) { return parts_.emplace_back(type); }
  void note(cudnnStatus_t status) {
    if (status == CUDNN_STATUS_SUCCESS || status_ != CUDNN_STATUS_SUCCESS) return;
    status_ = status;
    std::array<char, 256> text{};
    cudnnGetLastErrorString(text.data(), text.size());
    error_ = text.data();
  }

  RawDescriptor& tensor(const TensorSpec& spec) {
    if (const auto known = tensors_.find(spec.id); known != tensors_.end()) return *known->second;
    RawDescriptor& d = part(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    note(d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, spec.type));
    note(d.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {spec.dims.begin(), spec.dims.end()}));
    const Four strides = spec.strides == Four{} ? channels_last_strides(spec.dims) : spec.strides;
    note(d.set(CUDNN_ATTR_TENSOR_STRIDES, {strides.begin(), strides.end()}));
    note(d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {spec.id}));
    note(d.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {spec.alignment}));
    if (spec.is_virtual) {
      note(d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, std::vector<unsigned char>{1}));
    }
    note(d.finalize());
    tensors_.emplace(spec.id, &d);
    return d;
  }

  cudnnBackendDescriptor_t convolution(const ConvSpec& spec) {
    RawDescriptor& conv = part(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    note(conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, spec.compute));
    note(conv.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, std::vector{spec.mode}));
    note(conv.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {2}));
    note(conv.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {spec.pre.begin(), spec.pre.end()}));
    note(conv.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {spec.post.begin(), spec.post.end()}));
    note(conv.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {spec.dilation.begin(), spec.dilation.end()}));
    note(conv.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {spec.stride.begin(), spec.stride.end()}));
    note(conv.finalize());
    const std::array types{CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                           CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                           CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR};
    // alpha, beta, convolution, w, x, y
    const std::array all_names{
        std::array{CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
        std::array{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
        std::array{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}};
    const auto& names = all_names[static_cast<std::size_t>(spec.direction)];
    RawDescriptor& operation = part(types[static_cast<std::size_t>(spec.direction)]);
    for (const auto& [name, value] : {std::pair{names[0], spec.alpha}, {names[1], spec.beta}}) {
      if (spec.compute == CUDNN_DATA_DOUBLE) {
        note(operation.set(name, CUDNN_TYPE_DOUBLE, std::vector{value}));
      } else {
        note(operation.set(name, CUDNN_TYPE_FLOAT, std::vector{static_cast<float>(value)}));
      }
    }
    note(operation.set(names[2], conv));
    note(operation.set(names[3], tensor(spec.w)));
    note(operation.set(names[4], tensor(spec.x)));
    note(operation.set(names[5], tensor(spec.y)));
    note(operation.finalize());
    return operation.get();
  }

  cudnnBackendDescriptor_t pointwise(const StepSpec& spec, const TensorSpec& x, cudnnDataType_t compute) {
    RawDescriptor& f = part(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    note(f.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, std::vector{spec.mode}));
    note(f.set(CUDNN_ATTR_POINTWISE_MATH_PREC, compute));
    for (const auto& [name, value] : spec.clips) note(f.set(name, CUDNN_TYPE_DOUBLE, std::vector{value}));
    note(f.finalize());
    RawDescriptor& operation = part(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    note(operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, f));
    note(operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensor(x)));
    for (const TensorSpec& b : spec.b) note(operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensor(b)));
    note(operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensor(spec.y)));
    note(operation.finalize());
    return operation.get();
  }

  std::deque<RawDescriptor> parts_;
  std::map<std::int64_t, RawDescriptor*> tensors_;
  RawDescriptor* graph_ = nullptr;
  cudnnStatus_t status_ = CUDNN_STATUS_SUCCESS;
  std::string error_;
};

// The plan of an engine by its index.
class PlanOf {
 public:
  PlanOf(GraphOf& graph, std::int64_t engine) {
    EXPECT_EQ(engine_.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph.graph()), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(engine_.set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {engine}), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(engine_.finalize(), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(config_.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine_), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(config_.finalize(), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config_), CUDNN_STATUS_SUCCESS);
    status_ = plan_.finalize();
    if (status_ != CUDNN_STATUS_SUCCESS) return;
    std::int64_t count = 0;
    EXPECT_EQ(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                       &count, &workspace_bytes_),
              CUDNN_STATUS_SUCCESS);
  }
  cudnnStatus_t status() const { return status_; }
  std::size_t workspace_bytes() const { return static_cast<std::size_t>(workspace_bytes_); }
  cudnnStatus_t execute(cudnnHandle_t handle, const std::map<std::int64_t, void*>& tensors, void* workspace) const {
    std::vector<std::int64_t> ids;
    std::vector<void*> pointers;
    for (const auto& [id, pointer] : tensors) {
      ids.push_back(id);
      pointers.push_back(pointer);
    }
    RawDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    EXPECT_EQ(pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, std::vector{workspace}),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(pack.finalize(), CUDNN_STATUS_SUCCESS);
    return cudnnBackendExecute(handle, plan_.get(), pack.get());
  }

 private:
  RawDescriptor engine_{CUDNN_BACKEND_ENGINE_DESCRIPTOR}, config_{CUDNN_BACKEND_ENGINECFG_DESCRIPTOR},
      plan_{CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR};
  cudnnStatus_t status_ = CUDNN_STATUS_SUCCESS;
  std::int64_t workspace_bytes_ = 0;
};

}  // namespace retort::standin
