#include "engine/onnx_file.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <climits>
#include <filesystem>
#include <set>

#include "engine/onnx_array.h"
#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "kernels/error.h"

namespace retort {
namespace {

using ::onnx::AttributeProto;

OnnxAttribute attribute_of(AttributeProto& message, const std::string& what, const std::string& folder) {
  using Kind = OnnxAttribute::Kind;
  OnnxAttribute a;
  switch (message.type()) {
    case AttributeProto::FLOAT:
      a.kind = Kind::real;
      a.real = message.f();
      break;
    case AttributeProto::INT:
      a.kind = Kind::integer;
      a.integer = message.i();
      break;
    case AttributeProto::STRING:
      a.kind = Kind::text;
      a.text = message.s();
      break;
    case AttributeProto::TENSOR:
      a.kind = Kind::array;
      a.array = std::make_shared<OnnxArray>(onnx_array(*message.mutable_t(), what, folder));
      break;
    case AttributeProto::FLOATS:
      a.kind = Kind::reals;
      a.reals.assign(message.floats().begin(), message.floats().end());
      break;
    case AttributeProto::INTS:
      a.kind = Kind::integers;
      a.integers.assign(message.ints().begin(), message.ints().end());
      break;
    case AttributeProto::STRINGS:
      a.kind = Kind::texts;
      break;
    default:  // graphs, sparse tensors: whoever meets one says that it is of no use
      break;
  }
  return a;
}

OnnxValueInfo info_of(const ::onnx::ValueInfoProto& message) {
  OnnxValueInfo info;
  info.name = message.name();
  if (!message.type().has_tensor_type()) return info;
  const auto& tensor = message.type().tensor_type();
  info.type = onnx_type(tensor.elem_type());
  info.ranked = tensor.has_shape();
  for (const auto& dim : tensor.shape().dim()) {
    const bool fixed = dim.has_dim_value() && dim.dim_value() > 0;
    info.dims.push_back(fixed ? std::optional<std::int64_t>(dim.dim_value()) : std::nullopt);
  }
  return info;
}

// Every name is made once, before it is read.
void check_structure(const OnnxGraph& graph) {
  std::set<std::string> made, later;
  const auto make = [&](const std::string& name, const char* by) {
    check(made.insert(name).second, "{}: {} is made twice, the second time by {}", graph.path, in_quotes(name), by);
  };
  for (const auto& [name, array] : graph.initializers) make(name, "an initializer");
  for (const OnnxValueInfo& input : graph.inputs) make(input.name, "an input");
  for (const OnnxNode& node : graph.nodes) later.insert(node.outputs.begin(), node.outputs.end());
  for (const OnnxNode& node : graph.nodes) {
    for (const std::string& input : node.inputs) {
      if (input.empty() || made.count(input) != 0) continue;
      check(later.count(input) == 0,
            "{}: reads {} before it is made; the nodes of a file must be in order, without a cycle",
            where_of(graph, node), in_quotes(input));
      fail("{}: reads {}, which nothing makes", where_of(graph, node), in_quotes(input));
    }
    for (const std::string& output : node.outputs) {
      if (!output.empty()) make(output, "a node");
    }
  }
  check(!graph.outputs.empty(), "{}: has no outputs", graph.path);
  for (const OnnxValueInfo& output : graph.outputs) {
    check(made.count(output.name) != 0, "{}: the output {} is made by no node", graph.path, in_quotes(output.name));
  }
}

OnnxGraph graph_of(::onnx::ModelProto& model, const std::string& path, const std::string& folder) {
  check(model.has_graph(), "{}: holds no graph; it is no ONNX model, or was cut off", path);
  OnnxGraph graph;
  graph.path = path;
  for (const auto& import : model.opset_import()) {
    if (import.domain().empty() || import.domain() == "ai.onnx") graph.opset = import.version();
  }
  check(graph.opset > 0, "{}: does not say which version of ONNX's operators it uses", path);
  for (const auto& entry : model.metadata_props()) graph.metadata[entry.key()] = entry.value();

  auto& source = *model.mutable_graph();
  check(source.sparse_initializer_size() == 0, "{}: has sparse initializers, which are not read", path);
  for (auto& message : *source.mutable_initializer()) {
    const std::string what = path + ": initializer " + in_quotes(message.name());
    auto array = std::make_shared<OnnxArray>(onnx_array(message, what, folder));
    check(graph.initializers.emplace(message.name(), std::move(array)).second, "{}: is there twice", what);
  }
  for (const auto& message : source.input()) {
    if (graph.initializers.count(message.name()) == 0) graph.inputs.push_back(info_of(message));
  }
  for (const auto& message : source.output()) graph.outputs.push_back(info_of(message));
  for (auto& message : *source.mutable_node()) {
    OnnxNode node;
    node.name = message.name();
    const bool own = message.domain().empty() || message.domain() == "ai.onnx";
    node.op = own ? message.op_type() : message.domain() + "::" + message.op_type();
    node.inputs.assign(message.input().begin(), message.input().end());
    node.outputs.assign(message.output().begin(), message.output().end());
    for (auto& attribute : *message.mutable_attribute()) {
      const std::string what = where_of(graph, node) + ": attribute " + in_quotes(attribute.name());
      check(node.attributes.emplace(attribute.name(), attribute_of(attribute, what, folder)).second,
            "{}: is there twice", what);
    }
    graph.nodes.push_back(std::move(node));
  }
  check_structure(graph);
  return graph;
}

// protobuf itself bounds nesting (100 messages) and size (2 GiB).
template <typename Message>
void parse(Message& message, google::protobuf::io::ZeroCopyInputStream& source, const std::string& path) {
  const google::protobuf::LogSilencer silence;  // what is wrong is in the exception, not on stderr
  google::protobuf::io::CodedInputStream in(&source);
  check(message.ParseFromCodedStream(&in) && in.ConsumedEntireMessage(),
        "{}: is not a whole ONNX file: protobuf cannot read it", path);
}

template <typename Message>
void read(Message& message, const std::string& path) {
  std::ifstream in = open_weight_file(path);
  const auto size = std::filesystem::file_size(path);
  check(size <= INT_MAX, "{}: {} bytes are more than a protobuf message may have; export with external data", path,
        size);
  google::protobuf::io::IstreamInputStream source(&in);
  parse(message, source, path);
}

}  // namespace

const char* name_of(OnnxType type) {
  static constexpr const char* kNames[] = {"double", "float",  "float16", "bfloat16", "int64", "int32", "int16",
                                           "int8",   "uint64", "uint32",  "uint16",   "uint8", "bool",  "other"};
  return kNames[static_cast<std::size_t>(type)];
}

std::int64_t element_count(const Extents& dims, const std::string& what, std::int64_t limit) {
  std::int64_t count = 1;
  for (const std::int64_t extent : dims) {
    check(extent >= 0, "{}: the extents {} are not possible", what, shape_text(dims));
  }
  for (const std::int64_t extent : dims) {
    // Extents of 0 count as 1 here: strides are products of extents, and must not overflow either.
    const std::int64_t factor = std::max<std::int64_t>(1, extent);
    check(count <= limit / factor, "{}: the extents {} are too large", what, shape_text(dims));
    count *= factor;
  }
  return std::find(dims.begin(), dims.end(), 0) != dims.end() ? 0 : count;
}

std::string where_of(const OnnxGraph& graph, const OnnxNode& node) {
  const std::string name = !node.name.empty() ? node.name : node.outputs.empty() ? node.op : node.outputs[0];
  return graph.path + ": node " + in_quotes(name);
}

bool is_onnx_file(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) return false;
  std::ifstream in = open_weight_file(path);
  unsigned char first[3] = {};
  in.read(reinterpret_cast<char*>(first), 3);
  // Field 1 (the version of the format, a small number), then another field; a safetensors file whose first byte is 8
  // has 0 there.
  return in.gcount() == 3 && first[0] == 0x08 && first[1] >= 3 && first[1] < 64 && first[2] != 0;
}

OnnxGraph read_onnx_file(const std::string& path) {
  ::onnx::ModelProto model;
  read(model, path);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  return graph_of(model, path, folder.empty() ? "." : folder.string());
}

OnnxGraph parse_onnx(const std::string& bytes, const std::string& path) {
  check(bytes.size() <= INT_MAX, "{}: {} bytes are more than a protobuf message may have", path, bytes.size());
  ::onnx::ModelProto model;
  google::protobuf::io::ArrayInputStream source(bytes.data(), static_cast<int>(bytes.size()));
  parse(model, source, path);
  return graph_of(model, path, "");
}

OnnxArray read_onnx_array(const std::string& path) {
  ::onnx::TensorProto message;
  read(message, path);
  return onnx_array(message, path, "");
}

}  // namespace retort
