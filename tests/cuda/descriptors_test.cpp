// What cuDNN is told, against what the key means: planning says little about it (fp16 for bf16, convolution for
// cross-correlation, a ReLU forgotten, x and y exchanged all plan). The expected values are written here from the
// definition, not taken from cudnn_graph.cpp. Needs cuDNN, but no device and no driver.
//
// Most of it cannot be read back: cuDNN 9.19 gives neither a graph's operations nor a tensor's alignment nor a pointwise
// operation's parts, and of a tensor read from an operation not even the id. So the linker puts the functions below
// between our code and cuDNN (--wrap, tests/CMakeLists.txt), and they note what is set.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/error.h"
#include "tests/cuda/described_device.h"

namespace {

struct Noted {
  cudnnBackendAttributeType_t type{};
  std::int64_t count = 0;
  std::vector<unsigned char> bytes;
};
struct NotedDescriptor {
  cudnnBackendDescriptorType_t type{};
  std::map<cudnnBackendAttributeName_t, Noted> attributes;
};

std::map<cudnnBackendDescriptor_t, NotedDescriptor>& notes() {
  static std::map<cudnnBackendDescriptor_t, NotedDescriptor> all;
  return all;
}
cudnnBackendDescriptor_t last_pack = nullptr;
std::mutex notes_mutex;

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
      return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    default:
      return 4;
  }
}

}  // namespace

extern "C" {

cudnnStatus_t __real_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t*);
cudnnStatus_t __wrap_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                  cudnnBackendDescriptor_t* descriptor) {
  const cudnnStatus_t status = __real_cudnnBackendCreateDescriptor(type, descriptor);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  const std::scoped_lock lock(notes_mutex);
  notes()[*descriptor] = {type, {}};
  if (type == CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR) last_pack = *descriptor;
  return status;
}

cudnnStatus_t __real_cudnnBackendSetAttribute(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                              cudnnBackendAttributeType_t, std::int64_t, const void*);
cudnnStatus_t __wrap_cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, std::int64_t count,
                                              const void* elements) {
  const cudnnStatus_t status = __real_cudnnBackendSetAttribute(descriptor, name, type, count, elements);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  const auto* const bytes = static_cast<const unsigned char*>(elements);
  const std::scoped_lock lock(notes_mutex);
  notes()[descriptor].attributes[name] = {
      type, count, {bytes, bytes + static_cast<std::size_t>(count) * size_of(type)}};
  return status;
}

}  // extern "C"

namespace retort::kernels {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using Numbers = std::vector<std::int64_t>;

// What was noted of one descriptor.
class Told {
 public:
  explicit Told(cudnnBackendDescriptor_t descriptor) : noted_(notes().at(descriptor)) {}

  cudnnBackendDescriptorType_t type() const { return noted_.type; }
  bool has(cudnnBackendAttributeName_t name) const { return noted_.attributes.contains(name); }
  template <typename T>
  std::vector<T> all(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
    EXPECT_TRUE(has(name)) << "attribute " << static_cast<int>(name);
    if (!has(name)) return {};
    const Noted& noted = noted_.attributes.at(name);
    EXPECT_EQ(noted.type, type) << "attribute " << static_cast<int>(name);
    std::vector<T> values(noted.bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), noted.bytes.data(), values.size() * sizeof(T));
    return values;
  }
  template <typename T>
  T one(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
    const auto values = all<T>(name, type);
    EXPECT_EQ(values.size(), 1u) << "attribute " << static_cast<int>(name);
    return values.empty() ? T{} : values.front();
  }
  Numbers numbers(cudnnBackendAttributeName_t name) const { return all<std::int64_t>(name, CUDNN_TYPE_INT64); }
  std::vector<Told> parts(cudnnBackendAttributeName_t name) const {
    std::vector<Told> list;
    for (const auto part : all<cudnnBackendDescriptor_t>(name, CUDNN_TYPE_BACKEND_DESCRIPTOR)) list.emplace_back(part);
    return list;
  }
  Told part(cudnnBackendAttributeName_t name) const { return parts(name).at(0); }

 private:
  NotedDescriptor noted_;
};

struct Meant {
  const ConvKey& key;
  cudnnDataType_t data = key.dtype == DType::f64    ? CUDNN_DATA_DOUBLE
                         : key.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16
                                                    : CUDNN_DATA_FLOAT;
  cudnnDataType_t compute = key.dtype == DType::f64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
};

// A tensor that lies in memory as [a, h, w, c] and that cuDNN calls [a, c, h, w].
void expect_tensor(const Told& told, std::int64_t id, cudnnDataType_t type, const std::array<std::int64_t, 4>& shape,
                   std::int64_t alignment, bool is_virtual) {
  SCOPED_TRACE("tensor " + std::to_string(id));
  const auto [a, h, w, c] = shape;
  EXPECT_EQ(told.type(), CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  EXPECT_EQ(told.one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64), id);
  EXPECT_EQ(told.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE), type);
  EXPECT_THAT(told.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS), ElementsAre(a, c, h, w));
  EXPECT_THAT(told.numbers(CUDNN_ATTR_TENSOR_STRIDES), ElementsAre(h * w * c, 1, w * c, c));
  EXPECT_EQ(told.one<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64), alignment);
  const bool told_virtual = told.has(CUDNN_ATTR_TENSOR_IS_VIRTUAL) &&
                            told.one<unsigned char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN) != 0;
  EXPECT_EQ(told_virtual, is_virtual);
  for (const auto name : {CUDNN_ATTR_TENSOR_VECTOR_COUNT, CUDNN_ATTR_TENSOR_VECTORIZED_DIMENSION,
                          CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_ATTR_TENSOR_REORDERING_MODE}) {
    EXPECT_FALSE(told.has(name)) << "attribute " << static_cast<int>(name);
  }
}

void expect_scale(const Told& operation, cudnnBackendAttributeName_t name, const Meant& meant, double value) {
  if (meant.compute == CUDNN_DATA_DOUBLE) {
    EXPECT_EQ(operation.one<double>(name, CUDNN_TYPE_DOUBLE), value);
  } else {
    EXPECT_EQ(operation.one<float>(name, CUDNN_TYPE_FLOAT), static_cast<float>(value));
  }
}

void expect_geometry(const Told& told, const Meant& meant) {
  const ConvKey& key = meant.key;
  EXPECT_EQ(told.type(), CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  EXPECT_EQ(told.one<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE), meant.compute);
  EXPECT_EQ(told.one<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE),
            CUDNN_CROSS_CORRELATION);
  EXPECT_THAT(told.numbers(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS), ElementsAre(2));
  EXPECT_THAT(told.numbers(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), ElementsAreArray(key.padding));
  EXPECT_THAT(told.numbers(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS), ElementsAreArray(key.padding));
  EXPECT_THAT(told.numbers(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), ElementsAreArray(key.stride));
  EXPECT_THAT(told.numbers(CUDNN_ATTR_CONVOLUTION_DILATIONS), ElementsAreArray(key.dilation));
}

struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t x, w, y, geometry, alpha, beta;
};

OperationNames names_of(ConvDirection direction) {
  if (direction == ConvDirection::forward) {
    return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
  }
  if (direction == ConvDirection::backward_data) {
    return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

std::int64_t id_of(const Told& tensor) {
  return tensor.one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64);
}

// One step behind the convolution; gives the tensor that it makes.
Told expect_step(const Told& step, const Meant& meant, std::int64_t from, cudnnPointwiseMode_t mode) {
  EXPECT_EQ(step.type(), CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  EXPECT_EQ(id_of(step.part(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)), from);
  EXPECT_EQ(step.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC), mode == CUDNN_POINTWISE_ADD);
  EXPECT_FALSE(step.has(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1));
  EXPECT_FALSE(step.has(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2));
  const Told f = step.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
  EXPECT_EQ(f.one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE), mode);
  EXPECT_EQ(f.one<cudnnDataType_t>(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE), meant.compute);
  EXPECT_FALSE(f.has(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP));
  EXPECT_FALSE(f.has(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE));
  const bool clipped = mode == CUDNN_POINTWISE_RELU_FWD && meant.key.act == Activation::relu6;
  EXPECT_EQ(f.has(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP), clipped);
  if (clipped) {
    EXPECT_EQ(f.one<double>(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE), 6.0);
  }
  return step.part(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
}

void expect_chain(const std::vector<Told>& operations, const Meant& meant) {
  const ConvKey& key = meant.key;
  std::vector<std::string> wanted;  // the residual first: with the bias first cuDNN has no engine
  if (key.residual) wanted.push_back("residual");
  if (key.bias) wanted.push_back("bias");
  if (key.act != Activation::identity) wanted.push_back("activation");
  ASSERT_EQ(operations.size(), 1 + wanted.size());
  Told made = operations[0].part(names_of(key.direction).y);
  std::set<std::int64_t> ids{kConvX, kConvW, kConvY, kConvBias, kConvResidual};
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    SCOPED_TRACE(wanted[i]);
    EXPECT_TRUE(ids.insert(id_of(made)).second) << "an id is used twice";
    expect_tensor(made, id_of(made), meant.compute, key.y, key.alignment, true);
    const Told& step = operations[i + 1];
    made = expect_step(step, meant, id_of(made),
                       wanted[i] == "activation" ? CUDNN_POINTWISE_RELU_FWD : CUDNN_POINTWISE_ADD);
    if (wanted[i] == "residual") {
      expect_tensor(step.part(CUDNN_ATTR_OPERATION_POINTWISE_BDESC), kConvResidual, meant.data, key.y, key.alignment,
                    false);
    } else if (wanted[i] == "bias") {
      expect_tensor(step.part(CUDNN_ATTR_OPERATION_POINTWISE_BDESC), kConvBias, meant.data, {1, 1, 1, key.w[0]},
                    key.alignment, false);
    }
  }
  expect_tensor(made, kConvY, meant.data, key.y, key.alignment, false);
}

void expect_graph(const ConvGraph& graph, const ConvKey& key, bool fused) {
  SCOPED_TRACE(key.to_string() + (fused ? " fused" : ""));
  const Meant meant{key};
  const OperationNames names = names_of(key.direction);
  const auto operations = Told(graph.descriptor().get()).parts(CUDNN_ATTR_OPERATIONGRAPH_OPS);
  ASSERT_FALSE(operations.empty());
  const Told& convolution = operations[0];
  EXPECT_EQ(convolution.type(), names.type);
  expect_tensor(convolution.part(names.x), kConvX, meant.data, key.x, key.alignment, false);
  expect_tensor(convolution.part(names.w), kConvW, meant.data, key.w, key.alignment, false);
  expect_geometry(convolution.part(names.geometry), meant);
  expect_scale(convolution, names.alpha, meant, 1.0);
  expect_scale(convolution, names.beta, meant, 0.0);
  if (fused) return expect_chain(operations, meant);
  ASSERT_EQ(operations.size(), 1u);
  expect_tensor(convolution.part(names.y), kConvY, meant.data, key.y, key.alignment, false);
}

// No two numbers alike where they could be exchanged: y is [2, (9 + 2 - 4 - 1) / 2 + 1, (12 + 6 - 3 - 1) / 1 + 1, 9].
ConvKey key_of(ConvDirection direction, DType dtype, Math math = Math::standard) {
  ConvParams params;
  params.stride_h = 2;
  params.stride_w = 1;
  params.pad_h = 1;
  params.pad_w = 3;
  params.dilation_h = 2;
  params.dilation_w = 3;
  params.groups = 3;
  params.math = math;
  return make_conv_key(direction, dtype, {2, 9, 12, 6}, {9, 3, 2, 2}, {2, 4, 15, 9}, params, {}, 8);
}

constexpr ConvDirection kDirections[] = {ConvDirection::forward, ConvDirection::backward_data,
                                         ConvDirection::backward_weights};
constexpr DType kTypes[] = {DType::f64, DType::f32, DType::bf16};

TEST(CudnnDescriptors, SayWhatTheKeyMeans) {
  for (const DType dtype : kTypes) {
    for (const Math math : {Math::strict, Math::standard, Math::tf32}) {
      for (const ConvDirection direction : kDirections) {
        const ConvKey key = key_of(direction, dtype, math);
        expect_graph(ConvGraph(nullptr, key, false), key, false);
      }
    }
  }
}

TEST(CudnnDescriptors, ChainWhatFollowsTheConvolution) {
  for (const DType dtype : kTypes) {
    for (const bool residual : {false, true}) {
      for (const bool bias : {false, true}) {
        for (const Activation act : {Activation::identity, Activation::relu, Activation::relu6}) {
          ConvKey key = key_of(ConvDirection::forward, dtype);
          key.residual = residual;
          key.bias = bias;
          key.act = act;
          key.alignment = 16;
          expect_graph(ConvGraph(nullptr, key, true), key, true);
          expect_graph(ConvGraph(nullptr, key, false), key, false);
        }
      }
    }
  }
}

// A plan is handed its tensors by id. Without a device it cannot run; what it would run with is noted all the same.
TEST(CudnnDescriptors, APlanIsGivenEachPointerUnderItsId) {
  Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  if (const std::string why = describe(described_devices().front(), device); !why.empty()) GTEST_SKIP() << why;
  ConvParams params;
  params.pad_h = params.pad_w = 1;
  const Shape x{8, 16, 16, 32}, w{64, 3, 3, 32}, y{8, 16, 16, 64};
  ConvKey key = make_conv_key(ConvDirection::forward, DType::bf16, x, w, y, params, {}, 16);
  key.bias = key.residual = true;
  const ConvGraph graph(nullptr, key, true);
  const auto engines = propose_engines(graph, &device);
  std::optional<Plan> plan;
  for (const EngineConfig& engine : engines) {
    try {
      plan.emplace(engine);
      break;
    } catch (const Error&) {  // the next one
    }
  }
  ASSERT_TRUE(plan);
  std::array<double, 12> memory{};
  plan->execute(nullptr, &memory[0], &memory[2], &memory[4], &memory[6], &memory[8], &memory[10]);
  const Told pack(last_pack);
  EXPECT_THAT(pack.numbers(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS),
              ElementsAre(kConvX, kConvW, kConvY, kConvBias, kConvResidual));
  EXPECT_THAT(pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR),
              ElementsAre(&memory[0], &memory[2], &memory[4], &memory[6], &memory[8]));
  EXPECT_EQ(pack.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR), &memory[10]);
}

}  // namespace
}  // namespace retort::kernels
