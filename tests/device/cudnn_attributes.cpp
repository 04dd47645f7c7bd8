// Which attributes a descriptor has, of which type and how many: checked whenever one is set or read.
#include <algorithm>
#include <cstring>
#include <limits>

#include "tests/device/cudnn_descriptor.h"

namespace retort::standin::cudnn {
namespace {

enum Rights { kSet = 1, kRead = 2, kSetAndRead = 3 };

struct Attribute {
  cudnnBackendDescriptorType_t owner;
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  std::int64_t least = 1, most = 1;
  int rights = kSetAndRead;
  cudnnBackendDescriptorType_t part = CUDNN_BACKEND_TENSOR_DESCRIPTOR;  // of attributes that are descriptors
};

constexpr std::int64_t kMany = std::numeric_limits<std::int64_t>::max();
constexpr auto kTensor = CUDNN_BACKEND_TENSOR_DESCRIPTOR;
constexpr auto kConv = CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR;
constexpr auto kForward = CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
constexpr auto kData = CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
constexpr auto kFilter = CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
constexpr auto kPointwise = CUDNN_BACKEND_POINTWISE_DESCRIPTOR;
constexpr auto kPointwiseOp = CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR;
constexpr auto kGraph = CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR;
constexpr auto kEngine = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
constexpr auto kConfig = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
constexpr auto kKnob = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
constexpr auto kHeuristics = CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR;
constexpr auto kPlan = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR;
constexpr auto kPack = CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR;
constexpr auto kDevice = CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR;
constexpr auto kPart = CUDNN_TYPE_BACKEND_DESCRIPTOR;

constexpr Attribute kAttributes[] = {
    {kTensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE},
    {kTensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX},
    {kTensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX},
    {kTensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64},
    {kTensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64},
    {kTensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN},
    {kConv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE},
    {kConv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE},
    {kConv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64},
    {kConv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX},
    {kConv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX},
    {kConv, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX},
    {kConv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX},
    {kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, kPart},
    {kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, kPart},
    {kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, kPart},
    {kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, kPart, 1, 1, kSetAndRead, kConv},
    {kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_DOUBLE},
    {kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_DOUBLE},
    {kData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, kPart},
    {kData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, kPart},
    {kData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, kPart},
    {kData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, kPart, 1, 1, kSetAndRead, kConv},
    {kData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_TYPE_DOUBLE},
    {kData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_TYPE_DOUBLE},
    {kFilter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, kPart},
    {kFilter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, kPart},
    {kFilter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, kPart},
    {kFilter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, kPart, 1, 1, kSetAndRead, kConv},
    {kFilter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_TYPE_DOUBLE},
    {kFilter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, CUDNN_TYPE_DOUBLE},
    {kPointwise, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE},
    {kPointwise, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE},
    {kPointwise, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, CUDNN_TYPE_DOUBLE},
    {kPointwise, CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE},
    {kPointwise, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, CUDNN_TYPE_DOUBLE},
    {kPointwiseOp, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kPart, 1, 1, kSetAndRead, kPointwise},
    {kPointwiseOp, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, kPart},
    {kPointwiseOp, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, kPart},
    {kPointwiseOp, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, kPart},
    {kPointwiseOp, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, CUDNN_TYPE_DOUBLE},
    {kPointwiseOp, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, CUDNN_TYPE_DOUBLE},
    {kGraph, CUDNN_ATTR_OPERATIONGRAPH_OPS, kPart, 1, kMany, kSetAndRead, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {kGraph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, kSet},
    {kGraph, CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT, CUDNN_TYPE_INT64, 1, 1, kRead},
    {kEngine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, kPart, 1, 1, kSetAndRead, kGraph},
    {kEngine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64},
    {kEngine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, 0, kMany, kRead},
    {kConfig, CUDNN_ATTR_ENGINECFG_ENGINE, kPart, 1, 1, kSetAndRead, kEngine},
    {kConfig, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, kPart, 0, CUDNN_KNOB_TYPE_COUNTS, kSetAndRead, kKnob},
    {kKnob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE},
    {kKnob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64},
    {kHeuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, kPart, 1, 1, kSetAndRead, kGraph},
    {kHeuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE},
    {kHeuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, kPart, 1, 1, kSet, kDevice},
    {kHeuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, kPart, 0, kMany, kRead, kConfig},
    {kPlan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, kSet},
    {kPlan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, kPart, 1, 1, kSetAndRead, kConfig},
    {kPlan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, 1, kRead},
    {kPack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, kMany},
    {kPack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, kMany},
    {kPack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR},
    {kDevice, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 1, kMany},
};

bool is_operation(cudnnBackendDescriptorType_t type) {
  return type == kForward || type == kData || type == kFilter || type == kPointwiseOp;
}

bool is_scale(cudnnBackendAttributeName_t name) {
  switch (name) {
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA:
    case CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1:
    case CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2:
      return true;
    default:
      return false;
  }
}

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
      return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
      return 8;
    default:
      return 4;  // enumerations
  }
}

const Attribute& find(const Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                      Rights right) {
  const auto* const found = std::find_if(std::begin(kAttributes), std::end(kAttributes),
                                         [&](const Attribute& a) { return a.owner == d.type && a.name == name; });
  require(found != std::end(kAttributes) && (found->rights & right) != 0, CUDNN_STATUS_BAD_PARAM,
          "attribute {} of a {} descriptor cannot be {}", static_cast<int>(name), name_of(d.type),
          right == kSet ? "set" : "read");
  // Scales may be float or double; both are kept as double.
  const bool single = type == CUDNN_TYPE_FLOAT && is_scale(name);
  require(type == found->type || single, CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
          "attribute {} of a {} descriptor is of type {}, not {}", static_cast<int>(name), name_of(d.type),
          static_cast<int>(found->type), static_cast<int>(type));
  return *found;
}

}  // namespace

const char* name_of(cudnnBackendDescriptorType_t type) {
  switch (type) {
    case kTensor:
      return "TENSOR";
    case kConv:
      return "CONVOLUTION";
    case kForward:
      return "OPERATION_CONVOLUTION_FORWARD";
    case kData:
      return "OPERATION_CONVOLUTION_BACKWARD_DATA";
    case kFilter:
      return "OPERATION_CONVOLUTION_BACKWARD_FILTER";
    case kPointwise:
      return "POINTWISE";
    case kPointwiseOp:
      return "OPERATION_POINTWISE";
    case kGraph:
      return "OPERATIONGRAPH";
    case kEngine:
      return "ENGINE";
    case kConfig:
      return "ENGINECFG";
    case kKnob:
      return "KNOB_CHOICE";
    case kHeuristics:
      return "ENGINEHEUR";
    case kPlan:
      return "EXECUTION_PLAN";
    case kPack:
      return "VARIANT_PACK";
    case kDevice:
      return "DEVICEPROP";
    default:
      return nullptr;
  }
}

const DescriptorRef& Descriptor::part(cudnnBackendAttributeName_t name, std::size_t index) const {
  return values.at(name).parts.at(index);
}

void Descriptor::put(cudnnBackendAttributeName_t name, std::vector<DescriptorRef> list) {
  values[name] = {static_cast<std::int64_t>(list.size()), {}, std::move(list)};
}

void set_attribute(Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   std::int64_t count, const void* elements, std::vector<DescriptorRef> parts) {
  require(!d.finalized, CUDNN_STATUS_BAD_PARAM, "a {} descriptor that is finalized cannot be changed", name_of(d.type));
  const Attribute& attribute = find(d, name, type, kSet);
  require(count >= attribute.least && count <= attribute.most, CUDNN_STATUS_BAD_PARAM,
          "attribute {} of a {} descriptor cannot have {} elements", static_cast<int>(name), name_of(d.type), count);
  require(count == 0 || elements != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER,
          "attribute {} of a {} descriptor: no elements", static_cast<int>(name), name_of(d.type));
  if (type == kPart) {
    for (const DescriptorRef& part : parts) {
      const bool fits =
          attribute.part == kGraph && d.type == kGraph ? is_operation(part->type) : part->type == attribute.part;
      require(fits, CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "attribute {} of a {} descriptor cannot be a {} descriptor",
              static_cast<int>(name), name_of(d.type), name_of(part->type));
      require(part->finalized, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
              "attribute {} of a {} descriptor: the {} descriptor is not finalized", static_cast<int>(name),
              name_of(d.type), name_of(part->type));
    }
    d.put(name, std::move(parts));
  } else if (type == CUDNN_TYPE_FLOAT) {
    d.put(name, std::vector<double>{*static_cast<const float*>(elements)});
  } else {
    const auto* const bytes = static_cast<const unsigned char*>(elements);
    d.values[name] = {count, {bytes, bytes + static_cast<std::size_t>(count) * size_of(type)}, {}};
  }
}

void get_attribute(const Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   std::int64_t requested, std::int64_t* count, void* elements,
                   const std::vector<DescriptorRef>& into) {
  require(d.finalized, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a {} descriptor cannot be read before it is finalized",
          name_of(d.type));
  const Attribute& attribute = find(d, name, type, kRead);
  const auto found = d.values.find(name);
  const Value none;
  const Value& value = found == d.values.end() ? none : found->second;
  if (count != nullptr) *count = value.count;
  require(requested <= attribute.most, CUDNN_STATUS_BAD_PARAM, "attribute {} of a {} descriptor has no {} elements",
          static_cast<int>(name), name_of(d.type), requested);
  if (requested <= 0 || value.count == 0) return;
  require(elements != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER,
          "attribute {} of a {} descriptor: nowhere to put it", static_cast<int>(name), name_of(d.type));
  const auto stored = static_cast<std::size_t>(std::min(requested, value.count));
  if (type == CUDNN_TYPE_FLOAT) {
    *static_cast<float*>(elements) = static_cast<float>(d.one<double>(name));
  } else if (type == kPart) {
    for (std::size_t i = 0; i < stored; ++i) {
      const Descriptor& part = *value.parts[i];
      require(i < into.size() && into[i]->type == part.type, CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
              "attribute {} of a {} descriptor: element {} is a {} descriptor, to be read into one of that type",
              static_cast<int>(name), name_of(d.type), i, name_of(part.type));
      *into[i] = part;
      into[i]->destroyed = false;
    }
  } else {
    std::memcpy(elements, value.bytes.data(), stored * size_of(attribute.type));
  }
}

}  // namespace retort::standin::cudnn
