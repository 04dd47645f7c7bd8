// The ONNX project's own tests of its operators (Debian: libonnx-testdata): for each operator that is read, every test
// there is, with the file's inputs computed on the device and again with all of them as constants.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "engine/onnx_file.h"
#include "kernels/error.h"
#include "models/onnx/operators.h"
#include "models/onnx/runner.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = "/usr/lib/python3/dist-packages/onnx/backend/test/data/node";

// Tests of operators that are read, but of what is not read of them, by name or, with a star, by its beginning.
const std::map<std::string, std::string> kOutOfScope = {
    {"test_averagepool_1d*", "pools of images alone"},
    {"test_averagepool_3d*", "pools of images alone"},
    {"test_maxpool_1d*", "pools of images alone"},
    {"test_maxpool_3d*", "pools of images alone"},
    {"test_maxpool_2d_uint8", "computed numbers are floating ones"},
    {"test_maxpool_with_argmax*", "positions of the maxima"},
    {"test_batchnorm_epsilon_training_mode", "training"},
    {"test_batchnorm_example_training_mode", "training"},
    {"test_training_dropout*", "training"},
    {"test_dropout_default_mask*", "the mask of a dropout"},
    {"test_cast_BFLOAT16_to_FLOAT", "this package holds bfloat16 data as uint16"},
    {"test_cast_FLOAT_to_BFLOAT16", "this package holds bfloat16 data as uint16"},
    {"test_castlike_BFLOAT16_to_FLOAT_expanded", "this package holds bfloat16 data as uint16"},
    {"test_castlike_FLOAT_to_BFLOAT16_expanded", "this package holds bfloat16 data as uint16"},
    {"test_cast_FLOAT_to_STRING", "strings"},
    {"test_cast_STRING_to_FLOAT", "strings"},
    {"test_castlike_FLOAT_to_STRING_expanded", "strings"},
    {"test_castlike_STRING_to_FLOAT_expanded", "strings"},
    {"test_edge_pad", "padding other than by a constant"},
    {"test_reflect_pad", "padding other than by a constant"},
    {"test_identity_opt", "values that are no tensors"},
    {"test_identity_sequence", "values that are no tensors"},
    {"test_pow_types_float", "whole numbers from computed ones"},
    {"test_pow_types_int32_float32", "whole numbers from computed ones"},
    {"test_pow_types_int64_float32", "whole numbers from computed ones"},
};

const std::string* reason_to_leave_out(const std::string& name) {
  for (const auto& [key, reason] : kOutOfScope) {
    const bool star = key.back() == '*';
    if (star ? name.rfind(key.substr(0, key.size() - 1), 0) == 0 : name == key) return &reason;
  }
  return nullptr;
}

std::vector<OnnxArray> arrays_of(const fs::path& folder, const std::string& kind) {
  std::vector<OnnxArray> arrays;
  for (;;) {
    const fs::path file = folder / (kind + "_" + std::to_string(arrays.size()) + ".pb");
    if (!fs::exists(file)) return arrays;
    arrays.push_back(read_onnx_array(file.string()));
  }
}

// Throws Error where something differs.
void compare(const OnnxArray& found, const OnnxArray& expected) {
  check(found.dims == expected.dims, "extents differ");
  check(is_floating(found.type) == is_floating(expected.type), "types differ");
  check(found.integers == expected.integers, "whole numbers differ");
  const double tolerance = expected.type == OnnxType::f16 ? 1e-3 : 1e-5;  // f16 results stay f32 here
  for (std::size_t i = 0; i < expected.floats.size(); ++i) {
    const double x = found.floats[i], y = expected.floats[i];
    const bool same = x == y || (std::isnan(x) && std::isnan(y));
    check(same || std::abs(x - y) <= tolerance * (1 + std::abs(y)), "element {} is {}, expected {}", i, x, y);
  }
}

void run_test(const fs::path& folder, DType dtype, bool all_constant) {
  onnx::RunOptions options;
  options.dtype = dtype;
  onnx::Runner runner(read_onnx_file((folder / "model.onnx").string()), options);
  for (int set = 0; fs::exists(folder / ("test_data_set_" + std::to_string(set))); ++set) {
    const fs::path data = folder / ("test_data_set_" + std::to_string(set));
    const std::vector<OnnxArray> given = arrays_of(data, "input"), expected = arrays_of(data, "output");
    std::map<std::string, OnnxArray> inputs;
    for (std::size_t k = 0; k < given.size(); ++k) inputs[runner.graph().inputs.at(k).name] = given[k];
    const std::vector<OnnxArray> found = runner.run(inputs, all_constant);
    check(!expected.empty() && found.size() == expected.size(), "{} outputs, expected {}", found.size(),
          expected.size());
    for (std::size_t k = 0; k < found.size(); ++k) compare(found[k], expected[k]);
  }
}

TEST(OnnxNodes, TestsOfTheOnnxProject) {
  if (!fs::exists(kFolder)) GTEST_SKIP() << kFolder << " is not there (libonnx-testdata)";
  int run = 0, passed = 0, left_out = 0;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(kFolder)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) {
    const std::string name = folder.filename().string();
    const bool leave_out = reason_to_leave_out(name) != nullptr;
    try {
      const OnnxGraph graph = read_onnx_file((folder / "model.onnx").string());
      if (!std::all_of(graph.nodes.begin(), graph.nodes.end(),
                       [](const OnnxNode& node) { return onnx::find_operator(node.op) != nullptr; })) {
        continue;  // of operators that are not read
      }
    } catch (const Error&) {
      // Files of other operators hold types that are not read; those of ours are run below and must not fail.
      if (!leave_out) continue;
    }
    if (leave_out) {
      ++left_out;
      EXPECT_THROW(run_test(folder, DType::f32, false), Error) << name << ": passes, and is said to be out of scope";
      continue;
    }
    ++run;
    try {
      for (const DType dtype : {DType::f32, DType::f64}) {
        for (const bool all_constant : {false, true}) run_test(folder, dtype, all_constant);
      }
      ++passed;
    } catch (const Error& error) {
      ADD_FAILURE() << name << ": " << error.what();
    }
  }
  std::printf("ONNX node tests: %d run, %d passed, %d left out\n", run, passed, left_out);
  EXPECT_GT(run, 200);
}

}  // namespace
}  // namespace retort
