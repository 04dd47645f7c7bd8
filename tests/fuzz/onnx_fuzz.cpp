// Parses and compiles; nothing is run. The input, of whatever extents the file gives, is tried with small ones.
#include "engine/onnx_file.h"
#include "kernels/error.h"
#include "models/onnx/arrays.h"
#include "models/onnx/operators.h"
#include "models/onnx/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retort;
  try {
    OnnxGraph graph = parse_onnx(std::string(reinterpret_cast<const char*>(data), size), "fuzz.onnx");
    onnx::check_operators(graph);
    onnx::CompileOptions options;
    options.largest_value = options.largest_constant = 1 << 16;
    onnx::fold_constants(graph, options);
    std::map<std::string, onnx::Value> inputs;
    for (const OnnxValueInfo& info : graph.inputs) {
      onnx::Value value;
      for (const auto& extent : info.dims) value.dims.push_back(extent.value_or(2));
      element_count(value.dims, "fuzz.onnx", options.largest_value);
      value.strides = onnx::row_major_strides(value.dims);
      inputs[info.name] = value;
    }
    std::vector<std::string> wanted;
    for (const OnnxValueInfo& output : graph.outputs) wanted.push_back(output.name);
    onnx::DerivedConstants derived;
    onnx::compile(graph, inputs, wanted, options, derived);
    options.fuse = false;
    onnx::compile(graph, inputs, wanted, options, derived);
  } catch (const Error&) {
  }
  return 0;
}
