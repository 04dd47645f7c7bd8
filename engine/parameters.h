// The parameters and buffers of a network, under torchvision's names. All parameters lie in one flat arena, so that
// the optimizer, the gradient norm and a checkpoint each handle one array.
//
// Use: a model registers what it needs while it is built and keeps the handles; materialize() then allocates and
// initialises; operators use `parameter->data` and `buffer->value`.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/array_match.h"
#include "engine/safetensors.h"
#include "engine/tensor.h"

namespace retort {

enum class ParameterKind : std::uint8_t { conv_weight, linear_weight, bias, norm_scale, norm_shift };

constexpr bool is_weight(ParameterKind kind) {
  return kind == ParameterKind::conv_weight || kind == ParameterKind::linear_weight;
}

// How a parameter starts. Values are drawn in f64 and rounded to f32, so that all precisions start alike.
struct Initializer {
  enum class Kind : std::uint8_t { constant, normal, uniform };
  Kind kind = Kind::constant;
  double value = 0;  // the constant; the standard deviation; the bound of uniform(-bound, bound)

  static Initializer constant(double value) { return {Kind::constant, value}; }
  static Initializer normal(double standard_deviation) { return {Kind::normal, standard_deviation}; }
  static Initializer uniform(double bound) { return {Kind::uniform, bound}; }
  // He et al. 2015, mode fan_out, for ReLU: variance 2 / fan_out, fan_out = O KH KW of an OHWI weight (O of [O, I]).
  static Initializer kaiming_normal(const Shape& weight);
  // What PyTorch does by default for the weight and the bias of Linear and Conv2d: uniform within 1 / sqrt(fan_in),
  // fan_in being that of the layer's weight.
  static Initializer kaiming_uniform(const Shape& weight);
};

struct Parameter {
  std::string name;
  Shape shape;  // memory layout: convolution OHWI, linear [out, in], others [C]
  ParameterKind kind = ParameterKind::bias;
  Initializer init;
  bool frozen = false;
  double lr_factor = 1;    // on the learning rate
  std::int64_t first = 0;  // where it begins in the arena, in elements

  // From materialize() on; all are slices of the store's arenas.
  Tensor value;  // master copy: f64 when computing in f64, else f32
  Tensor data;   // what operators use: value's memory, or its bf16 shadow (weights when computing in bf16)
  Tensor grad;   // in value's type; where `data` accumulates its gradient
};

struct Buffer {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;  // f32 stands for the statistics' type, which is f64 when computing in f64
  double initial = 0;
  Tensor value;
};

struct LoadOptions {
  // What the caller is about to fill, compared with the file's metadata "arch" and "classes" where both are known.
  std::string arch;
  int classes = 0;
  // Missing and unexpected names are errors; without it they are only reported.
  bool strict = true;
  // Names that begin with one of these are neither read nor asked for ("fc." for another number of classes).
  std::vector<std::string> skip;
};

struct LoadReport {
  std::vector<std::string> missing;     // in the network, not in the file
  std::vector<std::string> unexpected;  // in the file, and in networks of this kind, but not in this one
  std::string note;                     // what a user should know of the file (ArrayMatch), or ""
};

class ParameterStore {
 public:
  ParameterStore() = default;
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;
  ParameterStore(ParameterStore&&) = default;
  ParameterStore& operator=(ParameterStore&&) = default;

  // Registration, before materialize(). Throws Error for a name that is taken.
  std::shared_ptr<Parameter> parameter(const std::string& name, const Shape& shape, ParameterKind kind,
                                       Initializer init);
  std::shared_ptr<Buffer> buffer(const std::string& name, const Shape& shape, DType dtype, double initial);

  // Allocates everything on `device` and initialises it from (seed, kPurposeInit, the parameter's number): the same
  // values on every device. `compute` is f64, f32 or bf16.
  void materialize(Device device, DType compute, std::uint64_t seed);
  bool materialized() const { return static_cast<bool>(values_); }

  // In place of materialize(), for a network that keeps its weights itself and registers them to be named and counted:
  // what device() and compute() say of it.
  void keep_elsewhere(Device device, DType compute) {
    elsewhere_ = device;
    compute_ = compute;
  }

  // In order of registration.
  const std::vector<std::shared_ptr<Parameter>>& parameters() const { return parameters_; }
  const std::vector<std::shared_ptr<Buffer>>& buffers() const { return buffers_; }
  std::int64_t parameter_count() const;  // elements, padding not counted
  Device device() const { return elsewhere_ ? *elsewhere_ : values_.device(); }
  DType compute() const { return compute_; }

  // The arenas: [n], n a multiple of kernels::kArenaChunk; padding is zero.
  const Tensor& values() const { return values_; }
  const Tensor& gradients() const { return gradients_; }
  const Tensor& shadow() const { return shadow_; }  // undefined unless computing in bf16
  // f32 [n / kArenaChunk], one factor per parameter, spread over its chunks.
  Tensor chunk_table(const std::function<double(const Parameter&)>& factor) const;

  // Frozen parameters require no gradient and optimizers leave them alone. Call before making an optimizer.
  void freeze(const std::function<bool(const Parameter&)>& which);

  // Call before making an optimizer.
  void set_lr_factor(double factor, const std::function<bool(const Parameter&)>& which);

  void zero_grad();    // declares all gradients zero without touching memory
  void finish_grad();  // before the optimizer: fills the gradients that nothing has contributed to with zeros

  // Convolution weights become OIHW, counters I64 scalars; floating values keep the master's type.
  std::vector<NamedArray> to_arrays() const;
  // Name and shape in files of each parameter, then of each buffer.
  std::vector<WantedArray> wanted() const;
  // Reads what to_arrays() wrote, or a file by PyTorch tools: floating types are converted, names of others translated,
  // and what no such network has is passed over with a note (engine/array_match.h). "num_batches_tracked" may be
  // missing or have any shape and type. Throws Error, one line with the file, before anything is changed; for a value
  // that is not finite too.
  LoadReport load(const WeightFile& file, const LoadOptions& options = {});
  // After writing to values(): brings the bf16 shadow up to date.
  void refresh_shadow();

  // Any arena-shaped state (an optimizer's moments) as one array per parameter, named prefix + parameter name; exact.
  void append_flat(const Tensor& flat, const std::string& prefix, std::vector<NamedArray>& out) const;
  void read_flat(const WeightFile& file, const std::string& prefix, const Tensor& flat) const;

 private:
  void require_materialized(const char* what) const;

  std::vector<std::shared_ptr<Parameter>> parameters_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  std::unordered_map<std::string, bool> names_;
  std::int64_t size_ = 0;  // of the arenas, in elements
  DType compute_ = DType::f32;
  std::optional<Device> elsewhere_;
  Tensor values_, gradients_, shadow_;
};

}  // namespace retort
