#include "models/onnx_model.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "models/onnx/compiler.h"
#include "models/onnx/runner.h"

namespace retort {
namespace {

using onnx::Plan;
using onnx::Value;

constexpr std::int64_t kUsualSize = 224;  // tried where neither the file nor its metadata give a size

const OnnxNode* maker_of(const OnnxGraph& graph, const std::string& name) {
  for (const OnnxNode& node : graph.nodes) {
    if (std::find(node.outputs.begin(), node.outputs.end(), name) != node.outputs.end()) return &node;
  }
  return nullptr;
}

// Images [N, C, H, W] that lie as [N, H, W, C].
Extents strides_of(const Extents& dims) {
  return onnx::dense_strides(dims, onnx::kImageOrder);
}

struct Use {
  const OnnxNode* node = nullptr;
  std::size_t input = 0;
};

ParameterKind kind_of(const Use& use, const OnnxArray& array) {
  if (use.node->op == "Conv" && use.input == 1 && array.dims.size() == 4) return ParameterKind::conv_weight;
  if (use.node->op == "BatchNormalization" && use.input == 1) return ParameterKind::norm_scale;
  if (use.node->op == "BatchNormalization" && use.input == 2) return ParameterKind::norm_shift;
  return array.dims.size() >= 2 ? ParameterKind::linear_weight : ParameterKind::bias;
}

Shape memory_shape(const Extents& d, ParameterKind kind, std::int64_t numel) {
  if (kind == ParameterKind::conv_weight) return {d[0], d[2], d[3], d[1]};
  switch (d.size()) {
    case 1:
      return {d[0]};
    case 2:
      return {d[0], d[1]};
    case 3:
      return {d[0], d[1], d[2]};
    case 4:
      return {d[0], d[1], d[2], d[3]};
    default:
      return {numel};
  }
}

}  // namespace

struct OnnxModel::Impl {
  Impl(OnnxGraph graph, const OnnxModelOptions& o)
      : options(o), runner(std::move(graph), {o.device, o.dtype, {o.fuse}}) {}

  const std::string& path() const { return runner.graph().path; }

  std::shared_ptr<const Plan> plan(const Extents& dims, const std::vector<std::string>& wanted) {
    return runner.plan_for(input, dims, strides_of(dims), wanted);
  }

  OnnxModelOptions options;
  onnx::Runner runner;
  std::string input, logits, note;
  std::optional<std::int64_t> batch;  // where the file fixes it
  bool fixed_size = false;
  std::int64_t height = 0, width = 0;
  std::vector<std::string> taps, stages;
};

OnnxModel::OnnxModel(OnnxGraph graph, const OnnxModelOptions& options) : Model({}) {
  spec_.arch = "onnx";
  spec_.stem = spec_.shortcut = "";
  const std::string path = graph.path;
  std::map<std::string, Use> uses;
  for (const OnnxNode& node : graph.nodes) {
    for (std::size_t k = 0; k < node.inputs.size(); ++k) uses.emplace(node.inputs[k], Use{&node, k});
  }
  for (const auto& [name, array] : graph.initializers) {
    const auto use = uses.find(name);
    if (use == uses.end() || !is_floating(array->type) || array->dims.empty() || array->numel() == 0) continue;
    check(std::all_of(array->floats.begin(), array->floats.end(), [](float v) { return std::isfinite(v); }),
          "{}: {} holds NaN or infinity; the network is of no use", path, in_quotes(name));
    const bool statistics = use->second.node->op == "BatchNormalization" && use->second.input >= 3;
    const ParameterKind kind = kind_of(use->second, *array);
    const Shape shape = memory_shape(array->dims, kind, array->numel());
    if (statistics) {
      store_.buffer(name, shape, DType::f32, 0);
    } else {
      store_.parameter(name, shape, kind, Initializer::constant(0))->frozen = true;
    }
  }

  store_.keep_elsewhere(options.device, options.dtype);

  check(graph.inputs.size() == 1, "{}: has {} inputs; a classifier has one, of images", path, graph.inputs.size());
  const OnnxValueInfo image = graph.inputs[0];
  check(is_floating(image.type) && (!image.ranked || image.dims.size() == 4) &&
            (!image.ranked || image.dims[1].value_or(3) == 3),
        "{}: its input {} is not one of floating images [N, 3, H, W]", path, in_quotes(image.name));
  std::string logits = graph.outputs[0].name, note;
  for (const OnnxNode* node = maker_of(graph, logits);
       node != nullptr && (node->op == "Softmax" || node->op == "LogSoftmax") && !node->inputs.empty();
       node = maker_of(graph, logits)) {
    note = fmt::format("it ends in a {}, whose input are the logits", node->op);
    logits = node->inputs[0];
  }

  impl_ = std::make_unique<Impl>(std::move(graph), options);
  impl_->input = image.name;
  impl_->logits = logits;
  impl_->note = note;
  if (image.ranked) {
    impl_->batch = image.dims[0];
    impl_->height = image.dims[2].value_or(0);
    impl_->width = image.dims[3].value_or(0);
    impl_->fixed_size = image.dims[2] && image.dims[3];
  }
  if (const auto size = metadata().find("input_size"); !impl_->fixed_size && size != metadata().end()) {
    std::istringstream in(size->second);
    std::int64_t height = 0, width = 0;
    if (in >> height >> width && std::min(height, width) > 0 && std::max(height, width) < 1 << 16) {
      impl_->height = height;
      impl_->width = width;
    }
  }

  // Compiled once for all that there is to know, and to find what cannot be compiled; on the host alone.
  const Extents dims = {impl_->batch.value_or(1), 3, impl_->height > 0 ? impl_->height : kUsualSize,
                        impl_->width > 0 ? impl_->width : kUsualSize};
  onnx::CompileOptions plain;
  plain.fuse = false;
  Value x;
  x.dims = dims;
  x.strides = strides_of(dims);
  onnx::DerivedConstants derived;
  const Plan all = onnx::compile(impl_->runner.graph(), {{image.name, x}}, {logits}, plain, derived);
  const Value& result = all.results.at(logits);
  check(!result.constant && result.dims.size() >= 2 && result.dims[0] == dims[0] && result.numel() > 0 &&
            result.numel() == result.dims[0] * result.dims[1],
        "{}: its first output {} is {} for {} images, where logits [N, classes] were expected", path, in_quotes(logits),
        shape_text(result.dims), dims[0]);
  spec_.classes = result.dims[1];
  for (const auto& [name, value] : all.computed) {
    const bool usable = (value.dims.size() == 2 || value.dims.size() == 4) && value.dims[0] == dims[0];
    if (usable) impl_->taps.push_back(name);
  }
  const std::shared_ptr<const Plan> fused = impl_->plan(dims, {logits});
  std::pair<std::int64_t, std::int64_t> size(0, 0);
  for (const auto& [name, value] : fused->computed) {
    if (value.dims.size() != 4 || value.dims[2] * value.dims[3] <= 1 || value.dims[0] != dims[0]) continue;
    const std::pair<std::int64_t, std::int64_t> here(value.dims[2], value.dims[3]);
    if (here == size && !impl_->stages.empty()) {
      impl_->stages.back() = name;
    } else {
      impl_->stages.push_back(name);
    }
    size = here;
  }
}

OnnxModel::~OnnxModel() = default;

ModelOutput OnnxModel::forward(const Tensor& x, const ForwardMode& mode, const TapNames& taps) const {
  check(!mode.training, "{}: a network from an ONNX file is for inference only", impl_->path());
  check_taps(taps);
  check(x.rank() == 4 && x.dim(3) == 3, "{}: images [N, H, W, 3] were expected, got {}", impl_->path(),
        x.shape().to_string());
  check(!impl_->fixed_size || (x.dim(1) == impl_->height && x.dim(2) == impl_->width),
        "{}: is for images of {}x{}, these are {}x{}; export it with free extents, or bring the images to its size",
        impl_->path(), impl_->height, impl_->width, x.dim(1), x.dim(2));
  const std::int64_t n = x.dim(0);
  const auto check_batch = [&](bool possible) {
    check(possible, "{}: was exported for batches of {} images, these are {}; export it with a free batch axis",
          impl_->path(), impl_->batch.value_or(1), n);
  };
  std::vector<std::string> wanted(taps.begin(), taps.end());
  if (taps.count(impl_->logits) == 0) wanted.push_back(impl_->logits);
  std::shared_ptr<const Plan> plan;
  try {
    plan = impl_->plan({n, 3, x.dim(1), x.dim(2)}, wanted);
  } catch (const Error&) {
    check_batch(!impl_->batch || *impl_->batch == n);
    throw;
  }
  const auto results = impl_->runner.execute(*plan, {{impl_->input, x.to(impl_->options.dtype)}}, mode.math);
  const auto tensor = [&](const std::string& name) {
    const Value& value = plan->results.at(name);
    const Extents& d = value.dims;
    check_batch(!d.empty() && d[0] == n);
    if (d.size() == 4 && name != impl_->logits) {
      return impl_->runner.tensor_of(value, results.at(name), onnx::kImageOrder, {d[0], d[2], d[3], d[1]});
    }
    return impl_->runner.tensor_of(value, results.at(name), onnx::plain_order(d.size()), {n, value.numel() / n});
  };
  ModelOutput output;
  output.logits = tensor(impl_->logits);
  for (const std::string& tap : taps) output.taps[tap] = tensor(tap);
  return output;
}

std::vector<std::string> OnnxModel::tap_names() const {
  return impl_->taps;
}
std::vector<std::string> OnnxModel::stage_names() const {
  return impl_->stages;
}
const std::map<std::string, std::string>& OnnxModel::metadata() const {
  return impl_->runner.graph().metadata;
}
std::int64_t OnnxModel::height() const {
  return impl_->height;
}
std::int64_t OnnxModel::width() const {
  return impl_->width;
}
const std::string& OnnxModel::note() const {
  return impl_->note;
}

std::unique_ptr<OnnxModel> read_onnx_model(const std::string& path, const OnnxModelOptions& options) {
  return std::make_unique<OnnxModel>(read_onnx_file(path), options);
}

}  // namespace retort
