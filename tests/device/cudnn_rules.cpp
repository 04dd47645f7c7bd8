// What cudnnBackendFinalize checks, and how operations and graphs are read.
#include <algorithm>
#include <limits>
#include <set>

#include "tests/device/cudnn_engines.h"
#include "tests/device/cudnn_program.h"

namespace retort::standin::cudnn {
namespace {

constexpr auto kBad = CUDNN_STATUS_BAD_PARAM;

void require_attributes(const Descriptor& d, std::initializer_list<cudnnBackendAttributeName_t> names) {
  for (const auto name : names) {
    require(d.has(name), kBad, "a {} descriptor needs attribute {}", name_of(d.type), static_cast<int>(name));
  }
}

void check_tensor(const Descriptor& d) {
  require_attributes(d, {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_STRIDES,
                         CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT});
  const auto dims = d.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS), strides = d.numbers(CUDNN_ATTR_TENSOR_STRIDES);
  require(dims.size() == strides.size(), kBad, "a tensor with {} dimensions and {} strides", dims.size(),
          strides.size());
  for (std::size_t i = 0; i < dims.size(); ++i) {
    require(dims[i] > 0, kBad, "a tensor's dimension {} is {}", i, dims[i]);
    require(strides[i] > 0, kBad, "a tensor's stride {} is {}", i, strides[i]);
  }
  const std::int64_t alignment = d.number(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  require(alignment > 0 && (alignment & (alignment - 1)) == 0, kBad, "a tensor's alignment is {} bytes", alignment);
}

void check_convolution(const Descriptor& d) {
  require_attributes(
      d, {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS,
          CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_ATTR_CONVOLUTION_DILATIONS,
          CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES});
  const std::int64_t spatial = d.number(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
  const auto each = [&](cudnnBackendAttributeName_t name, std::int64_t least, const char* what) {
    const auto values = d.numbers(name);
    require(static_cast<std::int64_t>(values.size()) == spatial, kBad, "a convolution over {} dimensions has {} {}",
            spatial, values.size(), what);
    for (const auto value : values) require(value >= least, kBad, "a convolution's {} cannot be {}", what, value);
  };
  each(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0, "pre-paddings");
  each(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 0, "post-paddings");
  each(CUDNN_ATTR_CONVOLUTION_DILATIONS, 1, "dilations");
  each(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1, "strides");
}

void check_pointwise(const Descriptor& d) {
  require_attributes(d, {CUDNN_ATTR_POINTWISE_MODE, CUDNN_ATTR_POINTWISE_MATH_PREC});
}

void check_variant_pack(const Descriptor& d) {
  require_attributes(d, {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS});
  const auto ids = d.numbers(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  require(static_cast<std::int64_t>(ids.size()) == d.values.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count, kBad,
          "a variant pack with {} ids and {} pointers", ids.size(),
          d.values.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count);
  require(std::set(ids.begin(), ids.end()).size() == ids.size(), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES,
          "a variant pack names a tensor twice");
}

struct ConvolutionNames {
  cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
};
ConvolutionNames names_of(cudnnBackendDescriptorType_t type) {
  switch (type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    default:
      return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  }
}

// An output in which two elements share memory has no value.
void check_result(const Tensor& t) {
  std::vector<std::pair<std::int64_t, std::int64_t>> axes;
  for (std::size_t i = 0; i < 4; ++i) {
    if (t.dims[i] > 1) axes.emplace_back(t.strides[i], t.dims[i]);
  }
  std::sort(axes.begin(), axes.end());
  std::int64_t covered = 1;
  for (const auto& [stride, extent] : axes) {
    require(stride >= covered, kBad, "elements of tensor {}, a result, share memory", t.id);
    covered = stride * (extent - 1) + covered;
  }
}

void check_shapes(const Convolution& c) {
  const auto expect = [&](bool condition, const char* what, std::int64_t is, std::int64_t expected) {
    require(condition, CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "a convolution's {} is {}, expected {}", what, is,
            expected);
  };
  expect(c.x.dims[0] == c.y.dims[0], "number of results", c.y.dims[0], c.x.dims[0]);
  expect(c.x.dims[1] % c.w.dims[1] == 0, "number of channels (a multiple of the filter's)", c.x.dims[1], c.w.dims[1]);
  expect(c.w.dims[0] == c.y.dims[1], "number of filters", c.w.dims[0], c.y.dims[1]);
  expect(c.w.dims[0] % c.groups == 0, "number of filters (a multiple of the groups)", c.w.dims[0], c.groups);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::int64_t reach = c.dilation[i] * (c.w.dims[2 + i] - 1) + 1;
    const std::int64_t room = c.x.dims[2 + i] + c.pre[i] + c.post[i] - reach;
    expect(room >= 0, "padded input", room + reach, reach);
    expect(c.y.dims[2 + i] == room / c.stride[i] + 1, i == 0 ? "result's height" : "result's width", c.y.dims[2 + i],
           room / c.stride[i] + 1);
  }
}

std::array<std::int64_t, 2> pair_of(const Descriptor& d, cudnnBackendAttributeName_t name) {
  const auto values = d.numbers(name);
  return {values.at(0), values.at(1)};
}

// Follows the values through the graph: what an operation reads must be in memory or come from one before it.
class Chain {
 public:
  explicit Chain(Program& program) : program_(program) {}

  void reads(const Tensor& t) {
    know(t);
    require(!t.is_virtual || made_.contains(t.id), kBad, "virtual tensor {} is read before an operation has made it",
            t.id);
    read_.insert(t.id);
  }
  void makes(const Tensor& t) {
    require(!known_.contains(t.id), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "tensor {} is used before it is made",
            t.id);
    know(t);
    check_result(t);
    made_.insert(t.id);
  }
  void end() const {
    for (const auto id : made_) {
      require(id == program_.output().id || read_.contains(id), CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN,
              "tensor {} is made, but nothing reads it", id);
    }
    require(!program_.output().is_virtual, kBad, "the graph's result, tensor {}, is virtual", program_.output().id);
  }

 private:
  void know(const Tensor& t) {
    const auto [known, fresh] = known_.try_emplace(t.id, t);
    require(fresh || known->second == t, CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES,
            "two tensors of one graph have the id {}", t.id);
    if (!t.is_virtual) program_.tensors.emplace(t.id, t);
  }

  Program& program_;
  std::map<std::int64_t, Tensor> known_;
  std::set<std::int64_t> made_, read_;
};

}  // namespace

std::size_t size_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_DOUBLE:
      return 8;
    case CUDNN_DATA_FLOAT:
      return 4;
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16:
      return 2;
    default:
      return 0;
  }
}

std::size_t Tensor::bytes() const {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < 4; ++i) last += (dims[i] - 1) * strides[i];
  return static_cast<std::size_t>(last + 1) * size_of(type);
}

Tensor read_tensor(const Descriptor& d) {
  const auto dims = d.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS), strides = d.numbers(CUDNN_ATTR_TENSOR_STRIDES);
  require(dims.size() == 4, CUDNN_STATUS_NOT_SUPPORTED_SHAPE, "a tensor with {} dimensions, not 4", dims.size());
  Tensor t;
  t.id = d.number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  t.type = d.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  std::copy(dims.begin(), dims.end(), t.dims.begin());
  std::copy(strides.begin(), strides.end(), t.strides.begin());
  t.alignment = d.number(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  t.is_virtual = d.one<unsigned char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL) != 0;
  require(size_of(t.type) > 0, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "tensor {} is of data type {}", t.id,
          static_cast<int>(t.type));
  return t;
}

const Tensor& Convolution::result() const {
  switch (direction) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return y;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return x;
    default:
      return w;
  }
}

Convolution read_convolution(const Descriptor& d) {
  const ConvolutionNames names = names_of(d.type);
  require_attributes(d, {names.x, names.w, names.y, names.convolution, names.alpha, names.beta});
  const Descriptor& conv = *d.part(names.convolution);
  require(conv.number(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) == 2, CUDNN_STATUS_NOT_SUPPORTED_SHAPE,
          "a convolution over {} dimensions, not 2", conv.number(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS));
  Convolution c;
  c.direction = d.type;
  c.x = read_tensor(*d.part(names.x));
  c.w = read_tensor(*d.part(names.w));
  c.y = read_tensor(*d.part(names.y));
  c.stride = pair_of(conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
  c.pre = pair_of(conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
  c.post = pair_of(conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
  c.dilation = pair_of(conv, CUDNN_ATTR_CONVOLUTION_DILATIONS);
  c.groups = std::max<std::int64_t>(1, c.x.dims[1] / c.w.dims[1]);
  c.flip = conv.one<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CONVOLUTION;
  c.alpha = d.one<double>(names.alpha);
  c.beta = d.one<double>(names.beta);
  c.compute = conv.one<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE);
  check_shapes(c);
  return c;
}

Pointwise read_pointwise(const Descriptor& d) {
  require_attributes(d, {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
                         CUDNN_ATTR_OPERATION_POINTWISE_YDESC});
  const Descriptor& f = *d.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
  Pointwise p;
  p.mode = f.one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
  p.compute = f.one<cudnnDataType_t>(CUDNN_ATTR_POINTWISE_MATH_PREC);
  p.lower = f.one<double>(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, 0.0);
  p.upper = f.one<double>(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, std::numeric_limits<double>::infinity());
  p.slope = f.one<double>(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, 0.0);
  p.alpha_x = d.one<double>(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1.0);
  p.alpha_b = d.one<double>(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1.0);
  p.has_b = d.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
  p.x = read_tensor(*d.part(CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
  p.y = read_tensor(*d.part(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
  if (p.has_b) p.b = read_tensor(*d.part(CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
  require(p.has_b || p.mode != CUDNN_POINTWISE_ADD, kBad, "ADD needs a second operand");
  require(!p.has_b || p.mode != CUDNN_POINTWISE_RELU_FWD, kBad, "RELU_FWD takes one operand");
  for (std::size_t i = 0; i < 4; ++i) {
    require(p.x.dims[i] == p.y.dims[i], CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
            "pointwise: dimension {} is {} in x and {} in y", i, p.x.dims[i], p.y.dims[i]);
    require(!p.has_b || p.b.dims[i] == 1 || p.b.dims[i] == p.y.dims[i], CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
            "pointwise: dimension {} is {} in b, neither 1 nor y's {}", i, p.b.dims[i], p.y.dims[i]);
  }
  return p;
}

Program read_program(const Descriptor& graph) {
  const auto& operations = graph.values.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).parts;
  constexpr auto kPointwise = CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR;
  require(operations.front()->type != kPointwise, CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN,
          "no engine for a graph that does not begin with a convolution");
  Program program;
  program.convolution = read_convolution(*operations.front());
  for (std::size_t i = 1; i < operations.size(); ++i) {
    require(operations[i]->type == kPointwise, CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN,
            "no engine for two convolutions in a graph");
    program.steps.push_back(read_pointwise(*operations[i]));
  }
  Chain chain(program);
  const Convolution& c = program.convolution;
  for (const Tensor* t : {&c.x, &c.w, &c.y}) {
    if (t != &c.result()) chain.reads(*t);
  }
  chain.makes(c.result());
  for (const Pointwise& p : program.steps) {
    chain.reads(p.x);
    if (p.has_b) chain.reads(p.b);
    chain.makes(p.y);
  }
  chain.end();
  return program;
}

void finalize(const DescriptorRef& ref) {
  Descriptor& d = *ref;
  require(!d.finalized, kBad, "a {} descriptor is finalized twice", name_of(d.type));
  switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      check_tensor(d);
      break;
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
      check_convolution(d);
      break;
    case CUDNN_BACKEND_POINTWISE_DESCRIPTOR:
      check_pointwise(d);
      break;
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
      read_pointwise(d);
      break;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_OPERATIONGRAPH_OPS});
      read_program(d);
      break;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      check_variant_pack(d);
      break;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_ATTR_ENGINEHEUR_MODE});
      propose(d);
      break;
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_ATTR_ENGINE_GLOBAL_INDEX});
      choose_engine(d);
      break;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_ENGINECFG_ENGINE});
      break;
    case CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE});
      break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG});
      build_plan(d);
      break;
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
      require_attributes(d, {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION});
      break;
    default:
      read_convolution(d);
  }
  d.finalized = true;
}

}  // namespace retort::standin::cudnn
