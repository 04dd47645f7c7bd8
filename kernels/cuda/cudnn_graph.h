// cuDNN's graph API (the backend descriptors of cudnn_graph.h), as far as convolutions need it: descriptors that free
// themselves, one graph of a convolution and what follows it, the engines that can run it, and plans.
// Attribute names and meanings: NVIDIA cuDNN documentation, "cudnn_graph Library".
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/conv_key.h"
#include "kernels/cuda/handle.h"

namespace retort::kernels {

// One backend descriptor. set() and finalize() throw Error when cuDNN refuses.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);

  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                  const void* values);
  Descriptor& set(cudnnBackendAttributeName_t name, std::int64_t value) {
    return set(name, CUDNN_TYPE_INT64, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
    return set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, bool value) { return set(name, CUDNN_TYPE_BOOLEAN, 1, &value); }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    const cudnnBackendDescriptor_t raw = value.get();
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  }
  Descriptor& finalize();
  cudnnBackendDescriptor_t get() const { return handle_.get(); }

 private:
  Handle<cudnnBackendDescriptor_t, cudnnBackendDestroyDescriptor> handle_;
};

// Unique ids of the tensors in a graph; what lies between two of its operations is numbered from kConvVirtual on.
enum ConvTensor : std::int64_t {
  kConvX = 1,
  kConvW = 2,
  kConvY = 3,
  kConvBias = 4,
  kConvResidual = 5,
  kConvVirtual = 6
};

// y = conv(x, w), dx = ..., or dw = ..., by the key's direction; fused, y = act(conv(x, w) + bias + residual), as far
// as the key has them. The bias is of the type of y: cuDNN 9.19 has no engine that adds an f32 bias to a bf16 result.
class ConvGraph {
 public:
  // Throws Error where cuDNN cannot express the graph. `handle` says for which device; null
  // where propose_engines is told by a description instead.
  ConvGraph(cudnnHandle_t handle, const ConvKey& key, bool fused);
  const Descriptor& descriptor() const { return graph_; }

 private:
  const Descriptor& keep(Descriptor part) { return parts_.emplace_back(std::move(part)); }
  const Descriptor& keep_tensor(std::int64_t id, cudnnDataType_t type, const CudnnLayout& layout, const ConvKey& key);
  std::vector<cudnnBackendDescriptor_t> add_epilogue(const ConvKey& key, const Descriptor* sum, const Descriptor& y);

  std::deque<Descriptor> parts_;  // all that the graph refers to: cuDNN does not say whether it has copies
  Descriptor graph_{CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR};
};

// An engine with its settings, as cuDNN's heuristics propose it.
struct EngineConfig {
  Descriptor config;
  std::string tag;  // "e41 k2=7 k14=3": engine and settings, the same in every process with this cuDNN and device
  std::vector<cudnnBackendNumericalNote_t> notes;

  bool has(cudnnBackendNumericalNote_t note) const;
};

// Proposals in cuDNN's order of preference: heuristic mode A, then the fallback list; empty where neither has any.
// With a description (a finalized CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) for a device that need not be there.
std::vector<EngineConfig> propose_engines(const ConvGraph& graph, const Descriptor* device = nullptr);

// Whether a convolution of this key may use the engine: deterministic always, and no less exact than key.math allows.
bool is_allowed(const EngineConfig& engine, const ConvKey& key);

class Plan {
 public:
  // Throws Error where the engine does not support the graph after all.
  explicit Plan(const EngineConfig& engine);

  std::size_t workspace_bytes() const { return workspace_bytes_; }
  // Queues the plan on the stream of `handle`. bias and residual are null unless the graph adds them.
  cudnnStatus_t execute(cudnnHandle_t handle, void* x, void* w, void* y, void* bias, void* residual,
                        void* workspace) const;

 private:
  Descriptor plan_{CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR};
  std::size_t workspace_bytes_ = 0;
};

}  // namespace retort::kernels
