// ONNX files (https://onnx.ai/onnx/repo-docs/IR.html) as plain structs: the graph of a frozen network with its weights.
// Reads format and structure only; what the operators mean is models/onnx/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace retort {

enum class OnnxType : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean, other };

const char* name_of(OnnxType type);  // "float16"
constexpr bool is_floating(OnnxType type) {
  return type == OnnxType::f64 || type == OnnxType::f32 || type == OnnxType::f16 || type == OnnxType::bf16;
}

using Extents = std::vector<std::int64_t>;  // of any rank

// The product. Throws Error, which begins with `what`, for an extent below 0 and for more than `limit` elements.
std::int64_t element_count(const Extents& dims, const std::string& what, std::int64_t limit = std::int64_t{1} << 40);

// A dense row-major array on the host. All floating types are held as f32, all others as i64; `type` says which they
// stand for.
struct OnnxArray {
  OnnxType type = OnnxType::f32;
  Extents dims;
  std::vector<float> floats;
  std::vector<std::int64_t> integers;

  std::int64_t numel() const { return static_cast<std::int64_t>(floats.size() + integers.size()); }
  double number(std::size_t i) const { return is_floating(type) ? floats[i] : static_cast<double>(integers[i]); }
};
using OnnxConstant = std::shared_ptr<const OnnxArray>;

struct OnnxAttribute {
  enum class Kind : std::uint8_t { real, integer, text, array, reals, integers, texts, other };
  Kind kind = Kind::other;
  double real = 0;
  std::int64_t integer = 0;
  std::string text;
  OnnxConstant array;
  std::vector<double> reals;
  std::vector<std::int64_t> integers;
};

struct OnnxNode {
  std::string name, op;                      // op with its domain where that is not ONNX's own: "ai.onnx.ml::Scaler"
  std::vector<std::string> inputs, outputs;  // "" stands for one that is left out
  std::map<std::string, OnnxAttribute> attributes;
};

struct OnnxValueInfo {
  std::string name;
  OnnxType type = OnnxType::other;
  bool ranked = false;                            // dims are known
  std::vector<std::optional<std::int64_t>> dims;  // nothing where an extent is free
};

struct OnnxGraph {
  std::string path;
  std::int64_t opset = 0;
  std::vector<OnnxNode> nodes;  // every input of a node is made before it
  std::map<std::string, OnnxConstant> initializers;
  std::vector<OnnxValueInfo> inputs;  // those that are no initializers
  std::vector<OnnxValueInfo> outputs;
  std::map<std::string, std::string> metadata;
};

// The node as errors name it: `model.onnx: node "/layer1/Foo_3"` (without a name its first output's).
std::string where_of(const OnnxGraph& graph, const OnnxNode& node);

// Whether the file can be one, by its first bytes: protobuf has no magic number, but a model begins with its format's
// version.
bool is_onnx_file(const std::string& path);

// Weights in files beside the model ("external data") are read from its own folder and those below it only. Throws Error, one line that
// begins with the file, for what is not a whole, sound model: sizes that contradict the extents, names that are made
// twice or never, a cycle.
OnnxGraph read_onnx_file(const std::string& path);
// The same from memory; without external data.
OnnxGraph parse_onnx(const std::string& bytes, const std::string& path);
// One array: the .pb files of the ONNX project's tests.
OnnxArray read_onnx_array(const std::string& path);

}  // namespace retort
