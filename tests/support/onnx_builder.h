// Small ONNX models for tests, made with the format's own classes.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <string>
#include <vector>

namespace retort::test {

class OnnxBuilder {
 public:
  using Names = std::vector<std::string>;
  using Integers = std::vector<std::int64_t>;

  explicit OnnxBuilder(std::int64_t opset = 17) {
    model.set_ir_version(8);
    model.add_opset_import()->set_version(opset);
  }

  // -1 leaves an extent free.
  void input(const std::string& name, const Integers& dims) { describe(*graph().add_input(), name, dims); }
  void output(const std::string& name) { describe(*graph().add_output(), name, {}); }
  ::onnx::TensorProto& weights(const std::string& name, const Integers& dims, const std::vector<float>& values) {
    auto& tensor = *graph().add_initializer();
    tensor.set_name(name);
    tensor.set_data_type(::onnx::TensorProto::FLOAT);
    for (const std::int64_t d : dims) tensor.add_dims(d);
    for (const float v : values) tensor.add_float_data(v);
    return tensor;
  }
  void integers(const std::string& name, const Integers& values) {
    auto& tensor = *graph().add_initializer();
    tensor.set_name(name);
    tensor.set_data_type(::onnx::TensorProto::INT64);
    tensor.add_dims(static_cast<std::int64_t>(values.size()));
    for (const std::int64_t v : values) tensor.add_int64_data(v);
  }

  class Node {
   public:
    explicit Node(::onnx::NodeProto& node) : node_(node) {}
    Node& set(const std::string& name, std::int64_t value) {
      add(name, ::onnx::AttributeProto::INT).set_i(value);
      return *this;
    }
    Node& set(const std::string& name, double value) {
      add(name, ::onnx::AttributeProto::FLOAT).set_f(static_cast<float>(value));
      return *this;
    }
    Node& list(const std::string& name, const Integers& values) {
      auto& attribute = add(name, ::onnx::AttributeProto::INTS);
      for (const std::int64_t v : values) attribute.add_ints(v);
      return *this;
    }

   private:
    ::onnx::AttributeProto& add(const std::string& name, ::onnx::AttributeProto::AttributeType type) {
      auto& attribute = *node_.add_attribute();
      attribute.set_name(name);
      attribute.set_type(type);
      return attribute;
    }
    ::onnx::NodeProto& node_;
  };

  // Named as its first output.
  Node node(const std::string& op, const Names& inputs, const Names& outputs) {
    auto& node = *graph().add_node();
    node.set_op_type(op);
    node.set_name(outputs.empty() ? op : outputs[0]);
    for (const std::string& name : inputs) node.add_input(name);
    for (const std::string& name : outputs) node.add_output(name);
    return Node(node);
  }

  ::onnx::GraphProto& graph() { return *model.mutable_graph(); }
  std::string bytes() const { return model.SerializeAsString(); }

  ::onnx::ModelProto model;

 private:
  static void describe(::onnx::ValueInfoProto& info, const std::string& name, const Integers& dims) {
    info.set_name(name);
    auto& tensor = *info.mutable_type()->mutable_tensor_type();
    tensor.set_elem_type(::onnx::TensorProto::FLOAT);
    for (const std::int64_t d : dims) {
      auto& dim = *tensor.mutable_shape()->add_dim();
      d < 0 ? dim.set_dim_param("free") : dim.set_dim_value(d);
    }
  }
};

}  // namespace retort::test
