#include "engine/onnx_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/batch_traces.h"
#include "engine/onnx_graph_writer.h"
#include "engine/trace.h"
#include "engine/version.h"
#include "engine/weight_file.h"

namespace retort {
namespace {

using kernels::Activation;
using kernels::PoolParams;
using Ints = std::vector<std::int64_t>;
using Names = std::vector<std::string>;

// A new field would be lost in silence: export it or refuse it, then change the number.
static_assert(sizeof(kernels::ConvParams) == 32 && sizeof(PoolParams) == 44);

constexpr int kOpset = 17, kIrVersion = 8;

// Feature maps are [N, H, W, C] here and [N, C, H, W] there; all else is the same.
bool is_map(const Tensor& t) {
  return t.rank() == 4;
}
int onnx_axis(const Tensor& t, int axis) {
  constexpr int kAxes[] = {0, 2, 3, 1};
  return is_map(t) ? kAxes[axis] : axis;
}
Ints onnx_dims(const Tensor& t) {
  Ints dims(static_cast<std::size_t>(t.rank()));
  for (int i = 0; i < t.rank(); ++i) dims[static_cast<std::size_t>(onnx_axis(t, i))] = t.dim(i);
  return dims;
}
// Whether the order of the elements is the same in both.
bool same_order(const Tensor& t) {
  return !is_map(t) || t.dim(1) * t.dim(2) == 1 || t.dim(3) == 1;
}

class Exporter {
 public:
  Exporter(const Trace& one, const Trace& two, const NamedTensors& constants, const OnnxExportOptions& options,
           onnx::GraphProto& graph)
      : one_(one), two_(two), half_(options.half), writer_(graph, {"image", "logits"}), values_(one.steps().size()) {
    for (const auto& [name, tensor] : constants) known_[key_of(tensor)] = name;
    add_input(options);
  }

  void add(std::size_t number);
  void finish(const Tensor& result);

 private:
  using Add = void (Exporter::*)(const TraceStep&);
  using Key = std::pair<const void*, std::string>;  // memory and shape
  static Key key_of(const Tensor& t) { return {t.view().data, t.shape().to_string()}; }
  static const std::map<std::string_view, Add>& table();

  void add_input(const OnnxExportOptions& options);
  void conv2d(const TraceStep& step);
  void batch_norm(const TraceStep& step);
  void linear(const TraceStep& step);
  void matmul(const TraceStep& step);
  void pool(const TraceStep& step);
  void adaptive_pool(const TraceStep& step);
  void reshape(const TraceStep& step);
  void concatenate(const TraceStep& step);
  void add_two(const TraceStep& step) { emit("Add", "add", {value(step, 0), value(step, 1)}); }
  void scale(const TraceStep& step);
  void scale_by(const TraceStep& step) { emit("Mul", "scale", {value(step, 0), value(step, 1)}); }
  void square(const TraceStep& step) { emit("Mul", "square", {value(step, 0), value(step, 0)}); }
  void activation(const TraceStep& step) { activate("", value(step, 0), std::get<Activation>(step.attributes)); }
  void softmax(const TraceStep& step);
  void l2_normalize(const TraceStep& step);
  // Exists only as what its user makes of it.
  void full(const TraceStep&) {}

  onnx::NodeProto& emit(const char* type, const std::string& name, const Names& inputs) {
    return writer_.node(type, name, inputs);
  }
  const std::string& last() const { return writer_.last(); }
  std::string number(const std::string& name, double value) { return writer_.floats(name, {}, {value}, half_); }
  void activate(const std::string& prefix, const std::string& input, Activation act);
  std::string value(const TraceStep& step, std::size_t input, bool weight = false);
  std::string constant(const Tensor& t, const TraceStep& step, bool weight);
  std::string name_of_layer(const TraceStep& step, std::size_t input) const;

  const Trace &one_, &two_;
  bool half_;
  OnnxGraphWriter writer_;
  std::map<Key, std::string> known_;    // names of constants
  std::map<Key, std::string> written_;  // those that are initializers already
  std::string image_;                   // the value that the network begins with
  Names values_;                        // of the steps
  std::size_t number_ = 0;              // of the step at work
};

const std::map<std::string_view, Exporter::Add>& Exporter::table() {
  static const std::map<std::string_view, Add> all{
      {"conv2d", &Exporter::conv2d},
      {"conv2d_inference", &Exporter::conv2d},
      {"batch_norm_inference", &Exporter::batch_norm},
      {"linear", &Exporter::linear},
      {"matmul", &Exporter::matmul},
      {"max_pool", &Exporter::pool},
      {"average_pool", &Exporter::pool},
      {"adaptive_average_pool", &Exporter::adaptive_pool},
      {"reshape", &Exporter::reshape},
      {"concatenate", &Exporter::concatenate},
      {"add", &Exporter::add_two},
      {"scale", &Exporter::scale},
      {"scale_by", &Exporter::scale_by},
      {"square", &Exporter::square},
      {"activation", &Exporter::activation},
      {"softmax", &Exporter::softmax},
      {"log_softmax", &Exporter::softmax},
      {"l2_normalize", &Exporter::l2_normalize},
      {"full", &Exporter::full},
  };
  return all;
}

void Exporter::add(std::size_t number) {
  const TraceStep& step = one_.steps()[number];
  const auto found = table().find(step.op);
  check(found != table().end() && step.output.dtype() == DType::f32, "{}: {} {} cannot be exported to ONNX", step.op,
        name_of(step.output.dtype()), step.output.shape().to_string());
  number_ = number;
  (this->*found->second)(step);
  if (step.op != "full") values_[number] = last();
}

void Exporter::activate(const std::string& prefix, const std::string& input, Activation act) {
  switch (act) {
    case Activation::identity:
      return;
    case Activation::relu:
      emit("Relu", prefix + "relu", {input});
      return;
    case Activation::relu6: {
      const std::string low = number(prefix + "relu6.min", 0), high = number(prefix + "relu6.max", 6);
      emit("Clip", prefix + "relu6", {input, low, high});
      return;
    }
  }
  fail("activation: number {} cannot be exported to ONNX", static_cast<int>(act));
}

std::string Exporter::value(const TraceStep& step, std::size_t input, bool weight) {
  const Tensor& t = step.inputs.at(input);
  const TraceSource source = one_.source_of(t, step.op);
  if (source.kind == TraceSource::Kind::given) return image_;
  if (source.kind == TraceSource::Kind::constant) return constant(t, step, weight);
  check(!values_[source.index].empty(), "{}: a filled tensor can be exported to ONNX as padding in a concatenate alone",
        step.op);
  return values_[source.index];
}

std::string Exporter::constant(const Tensor& t, const TraceStep& step, bool weight) {
  check(is_floating(t.dtype()) && is_map(t) == weight, "{}: the constant {} {} cannot be exported to ONNX", step.op,
        name_of(t.dtype()), t.shape().to_string());
  std::string& name = written_[key_of(t)];
  if (!name.empty()) return name;
  const auto known = known_.find(key_of(t));
  std::vector<double> numbers = t.to_doubles();
  if (weight) {  // OHWI -> OIHW
    const std::size_t inner = static_cast<std::size_t>(t.dim(3)),
                      pixels = static_cast<std::size_t>(t.dim(1) * t.dim(2));
    const std::vector<double> from = numbers;
    for (std::size_t i = 0; i < from.size(); ++i) {
      const std::size_t channel = i % inner, pixel = i / inner % pixels, filter = i / inner / pixels;
      numbers[(filter * inner + channel) * pixels + pixel] = from[i];
    }
  }
  return name = writer_.floats(known == known_.end() ? "constant" : known->second, onnx_dims(t), numbers, half_);
}

// "layer1.0.conv1" of the weight "layer1.0.conv1.weight".
std::string Exporter::name_of_layer(const TraceStep& step, std::size_t input) const {
  const auto known = known_.find(key_of(step.inputs[input]));
  if (known == known_.end()) return std::string(step.op);
  return known->second.substr(0, known->second.rfind('.'));
}

void Exporter::add_input(const OnnxExportOptions& options) {
  const Tensor& image = one_.given()[0];
  writer_.input("image", onnx_dims(image));
  image_ = "image";
  if (options.normalize) {
    const auto three = [&](const char* name, const std::array<double, 3>& v) {
      return writer_.floats(name, {1, 3, 1, 1}, {v.begin(), v.end()}, false);
    };
    check(image.dim(3) == 3, "export: normalising an image of {} channels", image.dim(3));
    emit("Sub", "normalize.sub", {image_, three("normalize.mean", options.normalize->mean)});
    emit("Div", "normalize", {last(), three("normalize.std", options.normalize->deviation)});
    image_ = last();
  }
  if (half_) {
    set(emit("Cast", "image_f16", {image_}), "to", static_cast<std::int64_t>(onnx::TensorProto::FLOAT16));
    image_ = last();
  }
}

void Exporter::finish(const Tensor& result) {
  check(result.rank() == 2 && result.dtype() == DType::f32, "export: the result is {} {}, not logits f32 [N, classes]",
        name_of(result.dtype()), result.shape().to_string());
  const TraceSource source = one_.source_of(result, "the result");
  const std::string name = values_[source.index];
  check(!name.empty(), "export: the logits are a filled tensor, whatever the image");
  if (half_) {
    onnx::NodeProto& cast = emit("Cast", "logits_f32", {name});
    set(cast, "to", static_cast<std::int64_t>(onnx::TensorProto::FLOAT));
    cast.set_output(0, "logits");
  } else {
    writer_.rename(name, "logits");
  }
  writer_.output("logits", onnx_dims(result));
}

void Exporter::conv2d(const TraceStep& step) {
  const auto& [params, act] = std::get<ConvAttributes>(step.attributes);
  const std::string name = name_of_layer(step, 1);
  Names inputs{value(step, 0), value(step, 1, true)};
  if (step.inputs[2]) inputs.push_back(value(step, 2));
  const Tensor& weight = step.inputs[1];
  onnx::NodeProto& node = emit("Conv", name, inputs);
  set(node, "kernel_shape", Ints{weight.dim(1), weight.dim(2)});
  set(node, "strides", Ints{params.stride_h, params.stride_w});
  set(node, "pads", Ints{params.pad_h, params.pad_w, params.pad_h, params.pad_w});
  set(node, "dilations", Ints{params.dilation_h, params.dilation_w});
  set(node, "group", std::int64_t{params.groups});
  if (step.inputs.size() > 3 && step.inputs[3]) emit("Add", name + ".add", {last(), value(step, 3)});
  activate(name + ".", last(), act);
}

void Exporter::batch_norm(const TraceStep& step) {
  const auto& [epsilon, act] = std::get<BatchNormAttributes>(step.attributes);
  check(step.output.rank() == 2 || is_map(step.output), "batch_norm_inference: {} cannot be exported to ONNX",
        step.output.shape().to_string());
  const std::string name = name_of_layer(step, 2);
  set(emit("BatchNormalization", name,
           {value(step, 0), value(step, 2), value(step, 3), value(step, 4), value(step, 5)}),
      "epsilon", epsilon);
  if (step.inputs[1]) emit("Add", name + ".add", {last(), value(step, 1)});
  activate(name + ".", last(), act);
}

void Exporter::linear(const TraceStep& step) {
  Names inputs{value(step, 0), value(step, 1)};
  if (step.inputs[2]) inputs.push_back(value(step, 2));
  set(emit("Gemm", name_of_layer(step, 1), inputs), "transB", std::int64_t{1});
}

void Exporter::matmul(const TraceStep& step) {
  const auto& [a, b] = std::get<MatmulAttributes>(step.attributes);
  onnx::NodeProto& node = emit("Gemm", "matmul", {value(step, 0), value(step, 1)});
  set(node, "transA", std::int64_t{a});
  set(node, "transB", std::int64_t{b});
}

void Exporter::pool(const TraceStep& step) {
  const auto& p = std::get<PoolParams>(step.attributes);
  const bool average = step.op == "average_pool";
  onnx::NodeProto& node = emit(average ? "AveragePool" : "MaxPool", std::string(step.op), {value(step, 0)});
  set(node, "kernel_shape", Ints{p.kernel_h, p.kernel_w});
  set(node, "strides", Ints{p.stride_h, p.stride_w});
  set(node, "pads", Ints{p.pad_h, p.pad_w, p.end_h(), p.end_w()});
  if (p.ceil_mode) set(node, "ceil_mode", std::int64_t{1});
  if (average) {
    // What a window beyond the padding is divided by is not settled before opset 19.
    check(!p.ceil_mode, "average_pool: with ceil_mode it cannot be exported to ONNX opset {}", kOpset);
    set(node, "count_include_pad", std::int64_t{p.count_padding});
  } else {
    set(node, "dilations", Ints{p.dilation_h, p.dilation_w});
  }
}

void Exporter::adaptive_pool(const TraceStep& step) {
  const Tensor &x = step.inputs[0], &y = step.output;
  if (y.dim(1) == 1 && y.dim(2) == 1) {
    emit("GlobalAveragePool", "global_average_pool", {value(step, 0)});
    return;
  }
  check(x.dim(1) % y.dim(1) == 0 && x.dim(2) % y.dim(2) == 0,
        "adaptive_average_pool: {} to {} has cells of different sizes, which ONNX has no operator for",
        x.shape().to_string(), y.shape().to_string());
  const Ints cell{x.dim(1) / y.dim(1), x.dim(2) / y.dim(2)};
  onnx::NodeProto& node = emit("AveragePool", "average_pool", {value(step, 0)});
  set(node, "kernel_shape", cell);
  set(node, "strides", cell);
}

// The elements' order is that of [N, H, W, C], so maps are turned to it and back where that makes a difference.
void Exporter::reshape(const TraceStep& step) {
  const Tensor &x = step.inputs[0], &y = step.output;
  std::string from = value(step, 0);
  if (!same_order(x)) {
    set(emit("Transpose", "transpose", {from}), "perm", Ints{0, 2, 3, 1});
    from = last();
  }
  if (y.rank() == 2 && x.dim(0) == y.dim(0)) {
    set(emit("Flatten", "flatten", {from}), "axis", std::int64_t{1});
    return;
  }
  const bool back = !same_order(y);
  Ints dims = back ? Ints() : onnx_dims(y);
  for (int i = 0; back && i < y.rank(); ++i) dims.push_back(y.dim(i));
  // What grows with the batch is free. For another batch the same pass has another extent there.
  const Tensor& other = two_.steps()[number_].output;
  if (y.dim(0) != other.dim(0)) dims[0] = -1;
  emit("Reshape", "reshape", {from, writer_.integers("reshape.shape", dims)});
  if (back) set(emit("Transpose", "transpose", {last()}), "perm", Ints{0, 3, 1, 2});
}

void Exporter::concatenate(const TraceStep& step) {
  const int axis = std::get<int>(step.attributes);
  // Filled tensors at the ends of one other are its padding.
  std::int64_t extents[2] = {0, 0};  // before, after
  std::vector<std::size_t> others;
  std::set<double> fillings;
  for (std::size_t i = 0; i < step.inputs.size(); ++i) {
    const TraceSource source = one_.source_of(step.inputs[i], step.op);
    const TraceStep* made = source.kind == TraceSource::Kind::step ? &one_.steps()[source.index] : nullptr;
    if (made == nullptr || made->op != "full") {
      others.push_back(i);
      continue;
    }
    extents[others.empty() ? 0 : 1] += step.inputs[i].dim(axis);
    fillings.insert(std::get<double>(made->attributes));
  }
  const int to = onnx_axis(step.output, axis);
  if (others.size() == 1 && fillings.size() == 1) {
    const std::size_t rank = static_cast<std::size_t>(step.output.rank()), at = static_cast<std::size_t>(to);
    Ints pads(2 * rank, 0);
    pads[at] = extents[0];
    pads[rank + at] = extents[1];
    const std::string from = value(step, others[0]), amounts = writer_.integers("pad.pads", pads),
                      filling = number("pad.value", *fillings.begin());
    emit("Pad", "pad", {from, amounts, filling});
    return;
  }
  Names inputs;
  for (std::size_t i = 0; i < step.inputs.size(); ++i) inputs.push_back(value(step, i));
  set(emit("Concat", "concatenate", inputs), "axis", std::int64_t{to});
}

void Exporter::scale(const TraceStep& step) {
  emit("Mul", "scale", {value(step, 0), number("scale.factor", std::get<double>(step.attributes))});
}

void Exporter::softmax(const TraceStep& step) {
  const bool log = step.op == "log_softmax";
  set(emit(log ? "LogSoftmax" : "Softmax", std::string(step.op), {value(step, 0)}), "axis", std::int64_t{1});
}

void Exporter::l2_normalize(const TraceStep& step) {
  const double epsilon = std::get<double>(step.attributes);
  check(!half_ || to_half(static_cast<float>(epsilon)) != 0,
        "l2_normalize: its epsilon {} is 0 in f16; export it in f32", epsilon);
  const std::string x = value(step, 0);
  onnx::NodeProto& norm = emit("ReduceL2", "l2_norm", {x});
  set(norm, "axes", Ints{1});
  set(norm, "keepdims", std::int64_t{1});
  emit("Clip", "l2_norm.clip", {last(), number("l2_norm.min", epsilon)});
  emit("Div", "l2_normalize", {x, last()});
}

}  // namespace

std::string onnx_model(const std::function<Tensor(const Tensor&)>& forward, const Shape& image,
                       const NamedTensors& constants, const OnnxExportOptions& options) {
  check(image.rank() == 3, "export: an image of shape {}, expected [H, W, C]", image.to_string());
  const auto [one, two] = trace_batches(forward, image);

  onnx::ModelProto model;
  model.set_ir_version(kIrVersion);
  model.set_producer_name("retort");
  model.set_producer_version(version());
  model.add_opset_import()->set_version(kOpset);
  for (const auto& [key, value] : options.metadata) {
    check_text(key, key);
    check_text(value, key);
    onnx::StringStringEntryProto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }
  model.mutable_graph()->set_name(options.name);
  Exporter exporter(one.trace, two.trace, constants, options, *model.mutable_graph());
  for (std::size_t i = 0; i < one.trace.steps().size(); ++i) exporter.add(i);
  exporter.finish(one.result);
  return model.SerializeAsString();
}

}  // namespace retort
