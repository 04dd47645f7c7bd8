// For the ONNX exporter: nodes, initializers and values of a graph, each name used once. Not part of the public
// interface.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace retort {

// For onnx_node's attributes.
void set(onnx::NodeProto& node, const char* name, const std::vector<std::int64_t>& values);
void set(onnx::NodeProto& node, const char* name, std::int64_t value);
void set(onnx::NodeProto& node, const char* name, double value);

// The format has no text but UTF-8: throws Error with the first line that is not, and `what` it belongs to.
void check_text(const std::string& text, const std::string& what);

class OnnxGraphWriter {
 public:
  using Ints = std::vector<std::int64_t>;
  using Names = std::vector<std::string>;

  // `taken`: names that stay reserved for the graph's inputs and outputs.
  OnnxGraphWriter(onnx::GraphProto& graph, std::set<std::string> taken) : graph_(graph), taken_(std::move(taken)) {}

  // A node is called what its result is called: `name`, with a number behind it where that is taken.
  onnx::NodeProto& node(const char* type, const std::string& name, const Names& inputs);
  const std::string& last() const { return last_; }  // the newest node's result

  // Initializers; these return the name that they got. `half`: f16; throws Error for what that cannot hold.
  std::string floats(const std::string& name, const Ints& dims, const std::vector<double>& numbers, bool half);
  std::string integers(const std::string& name, const Ints& numbers);

  // f32, the first extent "batch".
  void input(const std::string& name, const Ints& dims) { describe(*graph_.add_input(), name, dims); }
  void output(const std::string& name, const Ints& dims) { describe(*graph_.add_output(), name, dims); }
  void rename(const std::string& from, const std::string& to);  // a node's result, wherever it is used

 private:
  std::string unique(const std::string& wanted);
  static void describe(onnx::ValueInfoProto& info, const std::string& name, const Ints& dims);

  onnx::GraphProto& graph_;
  std::set<std::string> taken_;
  std::string last_;
};

}  // namespace retort
