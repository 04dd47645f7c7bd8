#include "engine/onnx_graph_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "kernels/error.h"

namespace retort {

void set(onnx::NodeProto& node, const char* name, const std::vector<std::int64_t>& values) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INTS);
  for (const std::int64_t v : values) attribute.add_ints(v);
}
void set(onnx::NodeProto& node, const char* name, std::int64_t value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}
void set(onnx::NodeProto& node, const char* name, double value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::FLOAT);
  attribute.set_f(static_cast<float>(value));
}

void check_text(const std::string& text, const std::string& what) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    try {
      nlohmann::json(line).dump();  // which checks it
    } catch (const nlohmann::json::type_error&) {
      fail("export: {} in {} is not UTF-8, which ONNX files are written in; convert it", in_quotes(line),
           in_quotes(what));
    }
  }
}

std::string OnnxGraphWriter::unique(const std::string& wanted) {
  check_text(wanted, wanted);
  std::string name = wanted;
  for (int i = 1; !taken_.insert(name).second; ++i) name = fmt::format("{}_{}", wanted, i);
  return name;
}

onnx::NodeProto& OnnxGraphWriter::node(const char* type, const std::string& name, const Names& inputs) {
  onnx::NodeProto& made = *graph_.add_node();
  last_ = unique(name);
  made.set_name(last_);
  made.set_op_type(type);
  for (const std::string& input : inputs) made.add_input(input);
  made.add_output(last_);
  return made;
}

std::string OnnxGraphWriter::floats(const std::string& name, const Ints& dims, const std::vector<double>& numbers,
                                    bool half) {
  onnx::TensorProto& tensor = *graph_.add_initializer();
  tensor.set_name(unique(name));
  for (const std::int64_t d : dims) tensor.add_dims(d);
  const std::vector<float> rounded(numbers.begin(), numbers.end());
  if (!half) {
    tensor.set_data_type(onnx::TensorProto::FLOAT);
    tensor.set_raw_data(rounded.data(), rounded.size() * sizeof(float));
    return tensor.name();
  }
  tensor.set_data_type(onnx::TensorProto::FLOAT16);
  std::vector<std::uint16_t> bits(rounded.size());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    bits[i] = to_half(rounded[i]);
    check((bits[i] & 0x7c00) != 0x7c00, "{}: holds {}, which f16 cannot; export it in f32", name, rounded[i]);
  }
  tensor.set_raw_data(bits.data(), bits.size() * sizeof(std::uint16_t));
  return tensor.name();
}

std::string OnnxGraphWriter::integers(const std::string& name, const Ints& numbers) {
  onnx::TensorProto& tensor = *graph_.add_initializer();
  tensor.set_name(unique(name));
  tensor.add_dims(static_cast<std::int64_t>(numbers.size()));
  tensor.set_data_type(onnx::TensorProto::INT64);
  tensor.set_raw_data(numbers.data(), numbers.size() * sizeof(std::int64_t));
  return tensor.name();
}

void OnnxGraphWriter::describe(onnx::ValueInfoProto& info, const std::string& name, const Ints& dims) {
  info.set_name(name);
  onnx::TypeProto::Tensor& type = *info.mutable_type()->mutable_tensor_type();
  type.set_elem_type(onnx::TensorProto::FLOAT);
  type.mutable_shape()->add_dim()->set_dim_param("batch");
  for (std::size_t i = 1; i < dims.size(); ++i) type.mutable_shape()->add_dim()->set_dim_value(dims[i]);
}

void OnnxGraphWriter::rename(const std::string& from, const std::string& to) {
  const auto change = [&](std::string& name) { name = name == from ? to : name; };
  for (onnx::NodeProto& made : *graph_.mutable_node()) {
    for (std::string& name : *made.mutable_input()) change(name);
    for (std::string& name : *made.mutable_output()) change(name);
  }
}

}  // namespace retort
