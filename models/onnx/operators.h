// Which operators are read, and in what form.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine/onnx_file.h"

namespace retort::onnx {

struct Operator {
  std::string name;
  std::size_t least_inputs = 1, most_inputs = 1;
  std::vector<std::string> attributes;   // all that it may have
  std::set<std::size_t> constants = {};  // inputs that must be known while compiling
  std::int64_t oldest_opset = 7;         // older ones differ
};

const Operator* find_operator(const std::string& name);  // null for one that is not read
std::vector<std::string> operator_names();

// Throws Error, one line that names every node (up to five) whose operator, attributes or number of inputs are not
// read, before anything is compiled; and for an opset that is not read.
void check_operators(const OnnxGraph& graph);

}  // namespace retort::onnx
