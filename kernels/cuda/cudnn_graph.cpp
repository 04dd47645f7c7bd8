#include "kernels/cuda/cudnn_graph.h"

#include <algorithm>
#include <array>

#include "kernels/cuda/check.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

cudnnDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDNN_DATA_DOUBLE;
    case DType::f32:
      return CUDNN_DATA_FLOAT;
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    default:
      fail("conv2d: {} is not a type that convolutions take", name_of(dtype));
  }
}

cudnnDataType_t compute_type(DType dtype) {
  return dtype == DType::f64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
}

Descriptor tensor(std::int64_t id, cudnnDataType_t type, const CudnnLayout& layout, std::int64_t alignment) {
  Descriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, layout.extents)
      .set(CUDNN_ATTR_TENSOR_STRIDES, layout.strides)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
  if (id >= kConvVirtual) d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  return d;
}

Descriptor convolution(const ConvKey& key) {
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  Descriptor d(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  d.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, compute_type(key.dtype))
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, key.padding)
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, key.padding)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, key.dilation)
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, key.stride);
  d.finalize();
  return d;
}

// The attributes of the three operations, which differ in name only.
struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
};
OperationNames names_of(ConvDirection direction) {
  switch (direction) {
    case ConvDirection::forward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case ConvDirection::backward_data:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvDirection::backward_weights:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

void set_scale(Descriptor& operation, cudnnBackendAttributeName_t name, DType dtype, double value) {
  if (dtype == DType::f64) {
    operation.set(name, CUDNN_TYPE_DOUBLE, 1, &value);
  } else {
    const float single = static_cast<float>(value);
    operation.set(name, CUDNN_TYPE_FLOAT, 1, &single);
  }
}

Descriptor pointwise(cudnnPointwiseMode_t mode, DType dtype) {
  Descriptor d(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  d.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, compute_type(dtype));
  return d;
}

Descriptor activation(Activation act, DType dtype) {
  constexpr double kSix = 6.0;
  Descriptor d = pointwise(CUDNN_POINTWISE_RELU_FWD, dtype);
  if (act == Activation::relu6) d.set(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE, 1, &kSix);
  return d;
}

// y = f(x), or f(x, b).
Descriptor pointwise_operation(const Descriptor& f, const Descriptor& x, const Descriptor* b, const Descriptor& y) {
  Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, f).set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y).finalize();
  return operation;
}

// Lists of descriptors are read into descriptors made beforehand; the answer says how many were filled.
std::vector<Descriptor> read_list(const Descriptor& from, cudnnBackendAttributeName_t name,
                                  cudnnBackendDescriptorType_t type, std::int64_t count) {
  std::vector<Descriptor> list;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < count; ++i) raw.push_back(list.emplace_back(type).get());
  std::int64_t filled = 0;
  RETORT_CALL(cudnnBackendGetAttribute(from.get(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &filled, raw.data()));
  list.erase(list.begin() + std::clamp<std::int64_t>(filled, 0, count), list.end());
  return list;
}

std::int64_t read_number(const Descriptor& from, cudnnBackendAttributeName_t name) {
  std::int64_t value = 0;
  std::int64_t count = 0;
  RETORT_CALL(cudnnBackendGetAttribute(from.get(), name, CUDNN_TYPE_INT64, 1, &count, &value));
  return value;
}

EngineConfig describe_engine(Descriptor config) {
  auto engines = read_list(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
  check(engines.size() == 1, "cudnn: an engine configuration without an engine");
  const Descriptor& engine = engines.front();
  std::string tag = fmt::format("e{}", read_number(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  for (const Descriptor& knob : read_list(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                          CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS)) {
    cudnnBackendKnobType_t type{};
    std::int64_t count = 0;
    RETORT_CALL(
        cudnnBackendGetAttribute(knob.get(), CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &count, &type));
    tag += fmt::format(" k{}={}", static_cast<int>(type), read_number(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  }
  std::vector<cudnnBackendNumericalNote_t> notes(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  std::int64_t count = 0;
  RETORT_CALL(cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                       CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()));
  notes.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, CUDNN_NUMERICAL_NOTE_TYPE_COUNT)));
  return {std::move(config), std::move(tag), std::move(notes)};
}

}  // namespace

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  RETORT_CALL(cudnnBackendCreateDescriptor(type, handle_.out()));
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                            const void* values) {
  const cudnnStatus_t status = cudnnBackendSetAttribute(get(), name, type, count, values);
  if (status != CUDNN_STATUS_SUCCESS) {
    fail("cudnn: cudnnBackendSetAttribute(attribute {}): {}", static_cast<int>(name), describe(status));
  }
  return *this;
}

Descriptor& Descriptor::finalize() {
  RETORT_CALL(cudnnBackendFinalize(get()));
  return *this;
}

const Descriptor& ConvGraph::keep_tensor(std::int64_t id, cudnnDataType_t type, const CudnnLayout& layout,
                                         const ConvKey& key) {
  Descriptor d = tensor(id, type, layout, key.alignment);
  d.finalize();
  return keep(std::move(d));
}

// The operations from the convolution's sum to y. In between, values stay in the compute type: rounded once, as on the
// CPU.
std::vector<cudnnBackendDescriptor_t> ConvGraph::add_epilogue(const ConvKey& key, const Descriptor* sum,
                                                              const Descriptor& y) {
  const cudnnDataType_t type = data_type(key.dtype);
  const CudnnLayout layout = channels_last(key.y);
  struct Step {
    Descriptor f;
    const Descriptor* operand;
  };
  std::vector<Step> steps;  // in the one order that cuDNN 9.19's engines know
  if (key.residual) {
    const Descriptor& residual = keep_tensor(kConvResidual, type, layout, key);
    steps.push_back({pointwise(CUDNN_POINTWISE_ADD, key.dtype), &residual});
  }
  if (key.bias) {
    const Descriptor& bias = keep_tensor(kConvBias, type, channels_last({1, 1, 1, key.y[3]}), key);
    steps.push_back({pointwise(CUDNN_POINTWISE_ADD, key.dtype), &bias});
  }
  if (key.act != Activation::identity) steps.push_back({activation(key.act, key.dtype), nullptr});
  std::vector<cudnnBackendDescriptor_t> operations;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const auto id = kConvVirtual + 1 + static_cast<std::int64_t>(i);
    const Descriptor& result = i + 1 == steps.size() ? y : keep_tensor(id, compute_type(key.dtype), layout, key);
    const Descriptor& f = keep(std::move(steps[i].f.finalize()));
    operations.push_back(keep(pointwise_operation(f, *sum, steps[i].operand, result)).get());
    sum = &result;
  }
  return operations;
}

ConvGraph::ConvGraph(cudnnHandle_t handle, const ConvKey& key, bool fused) {
  const cudnnDataType_t type = data_type(key.dtype);
  const CudnnLayout y_layout = channels_last(key.y);
  const Descriptor& x = keep_tensor(kConvX, type, channels_last(key.x), key);
  const Descriptor& w = keep_tensor(kConvW, type, channels_last(key.w), key);
  const Descriptor& y = keep_tensor(kConvY, type, y_layout, key);
  const bool split = fused && key.has_epilogue();
  const Descriptor& result = split ? keep_tensor(kConvVirtual, compute_type(key.dtype), y_layout, key) : y;

  const OperationNames names = names_of(key.direction);
  Descriptor operation(names.type);
  operation.set(names.x, x).set(names.w, w).set(names.y, result).set(names.convolution, keep(convolution(key)));
  set_scale(operation, names.alpha, key.dtype, 1.0);
  set_scale(operation, names.beta, key.dtype, key.accumulate ? 1.0 : 0.0);
  operation.finalize();
  std::vector<cudnnBackendDescriptor_t> operations{keep(std::move(operation)).get()};
  if (split) {
    for (const cudnnBackendDescriptor_t step : add_epilogue(key, &result, y)) operations.push_back(step);
  }
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(operations.size()),
             operations.data());
  if (handle != nullptr) graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  graph_.finalize();
}

bool EngineConfig::has(cudnnBackendNumericalNote_t note) const {
  return std::find(notes.begin(), notes.end(), note) != notes.end();
}

std::vector<EngineConfig> propose_engines(const ConvGraph& graph, const Descriptor* device) {
  std::vector<EngineConfig> engines;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.descriptor())
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (device != nullptr) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
    // A refusal here is an answer: this mode knows no engine for the graph.
    if (cudnnBackendFinalize(heuristics.get()) != CUDNN_STATUS_SUCCESS) continue;
    std::int64_t count = 0;
    if (cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                 &count, nullptr) != CUDNN_STATUS_SUCCESS) {
      continue;
    }
    for (Descriptor& config :
         read_list(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, count)) {
      EngineConfig engine = describe_engine(std::move(config));
      const bool known = std::any_of(engines.begin(), engines.end(),
                                     [&](const EngineConfig& other) { return other.tag == engine.tag; });
      if (!known) engines.push_back(std::move(engine));
    }
  }
  return engines;
}

bool is_allowed(const EngineConfig& engine, const ConvKey& key) {
  if (engine.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) return false;
  if (engine.has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)) return false;
  // Partial sums stored in bf16 are no worse than its results; in f32 they would be tf32 by another name.
  if ((key.dtype != DType::bf16 || key.math == Math::strict) &&
      engine.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) {
    return false;
  }
  // On f32 data tensor cores mean tf32.
  if (key.dtype == DType::f32 && key.math != Math::tf32 && engine.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE)) return false;
  if (key.math == Math::strict) {
    for (const auto note :
         {CUDNN_NUMERICAL_NOTE_FFT, CUDNN_NUMERICAL_NOTE_WINOGRAD, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
          CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13}) {
      if (engine.has(note)) return false;
    }
  }
  return true;
}

Plan::Plan(const EngineConfig& engine) {
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine.config).finalize();
  workspace_bytes_ =
      static_cast<std::size_t>(std::max<std::int64_t>(0, read_number(plan_, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)));
}

cudnnStatus_t Plan::execute(cudnnHandle_t handle, void* x, void* w, void* y, void* bias, void* residual,
                            void* workspace) const {
  std::array<std::int64_t, 5> ids{kConvX, kConvW, kConvY};
  std::array<void*, 5> pointers{x, w, y};
  std::size_t used = 3;
  for (const auto& [id, pointer] : {std::pair<std::int64_t, void*>{kConvBias, bias}, {kConvResidual, residual}}) {
    if (pointer == nullptr) continue;
    ids[used] = id;
    pointers[used++] = pointer;
  }
  const auto count = static_cast<std::int64_t>(used);
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids.data())
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace)
      .finalize();
  return cudnnBackendExecute(handle, plan_.get(), pack.get());
}

}  // namespace retort::kernels
