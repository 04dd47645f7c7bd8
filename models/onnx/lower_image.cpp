// Convolution with what follows it, batch normalisation, pooling.
#include <algorithm>
#include <cmath>

#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "models/onnx/compiler.h"

namespace retort::onnx {
namespace {

using kernels::Activation;

constexpr std::int64_t kMostPixels = 1 << 20;  // in a kernel, stride, dilation or padding

struct WindowAxis {
  std::int64_t kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;

  std::int64_t reach() const { return dilation * (kernel - 1) + 1; }
};
using Window = std::array<WindowAxis, 2>;  // rows, columns

void check_image(const Value& x) {
  check(x.dims.size() == 4, "an input of extents {}; images [N, C, H, W] are read", shape_text(x.dims));
}

// The attributes that convolutions and pools share.
Window window_of(const Compiler& c, const OnnxNode& node, const Value& x, std::int64_t kernel_h,
                 std::int64_t kernel_w) {
  Window window;
  window[0].kernel = kernel_h;
  window[1].kernel = kernel_w;
  const auto read = [&](const char* name, std::size_t count, std::int64_t least, auto&& set) {
    const Extents* values = c.integers(node, name);
    if (values == nullptr) return;
    check(values->size() == count, "{} {}; {} numbers were expected", name, shape_text(*values), count);
    for (std::size_t k = 0; k < count; ++k) {
      check((*values)[k] >= least && (*values)[k] <= kMostPixels, "{} {}", name, shape_text(*values));
      set(k, (*values)[k]);
    }
  };
  read("kernel_shape", 2, 1, [&](std::size_t k, std::int64_t v) {
    check(window[k].kernel == 0 || window[k].kernel == v, "kernel_shape differs from its weights");
    window[k].kernel = v;
  });
  check(window[0].kernel > 0 && window[1].kernel > 0, "lacks its kernel_shape");
  check(std::max(window[0].kernel, window[1].kernel) <= kMostPixels, "a kernel of {}x{}", window[0].kernel,
        window[1].kernel);
  read("strides", 2, 1, [&](std::size_t k, std::int64_t v) { window[k].stride = v; });
  read("dilations", 2, 1, [&](std::size_t k, std::int64_t v) { window[k].dilation = v; });
  read("pads", 4, 0, [&](std::size_t k, std::int64_t v) { (k < 2 ? window[k].before : window[k - 2].after) = v; });

  const std::string automatic = c.text(node, "auto_pad", "NOTSET");
  if (automatic == "VALID") {
    for (WindowAxis& axis : window) axis.before = axis.after = 0;
  } else if (automatic == "SAME_UPPER" || automatic == "SAME_LOWER") {
    for (std::size_t k = 0; k < 2; ++k) {
      WindowAxis& axis = window[k];
      const std::int64_t in = x.dims[2 + k], out = (in + axis.stride - 1) / axis.stride;
      const std::int64_t total = std::max<std::int64_t>(0, (out - 1) * axis.stride + axis.reach() - in);
      axis.before = (automatic == "SAME_UPPER" ? total : total + 1) / 2;
      axis.after = total - axis.before;
    }
  } else {
    check(automatic == "NOTSET", "auto_pad {}", in_quotes(automatic));
  }
  return window;
}

// One line of the output; throws where no window fits.
std::int64_t output_extent(std::int64_t in, const WindowAxis& axis, bool round_up) {
  const std::int64_t padded = in + axis.before + axis.after;
  check(in > 0 && axis.reach() <= padded, "a kernel that reaches over {} of {} pixels, padding included", axis.reach(),
        padded);
  std::int64_t out = (padded - axis.reach() + (round_up ? axis.stride - 1 : 0)) / axis.stride + 1;
  if (round_up && (out - 1) * axis.stride >= in + axis.before) --out;  // no window begins in the end's padding
  return out;
}

Shape image_shape(const Value& x) {  // as it lies in memory
  return {x.dims[0], x.dims[2], x.dims[3], x.dims[1]};
}

OnnxConstant filters_last(Compiler& c, const OnnxConstant& weight) {  // OIHW -> OHWI
  return c.derive({weight}, "OHWI", [&] {
    const Extents& d = weight->dims;
    const Extents s = row_major_strides(d);
    return copied(*weight, 0, {d[0], d[2], d[3], d[1]}, {s[0], s[2], s[3], s[1]});
  });
}

// gamma (y - mean) / sqrt(variance + epsilon) + beta = scale y + shift, channel by channel.
struct Normalisation {
  std::vector<OnnxConstant> sources;  // gamma, beta, mean, variance
  double epsilon = 1e-5;

  double scale(std::size_t k) const {
    return sources[0]->floats[k] / std::sqrt(static_cast<double>(sources[3]->floats[k]) + epsilon);
  }
};

// In training mode the statistics are those of x. Before opset 14 that mode is told by results besides the first; of
// images, runtimes take it for inference there, and so does this.
bool takes_own_statistics(const Compiler& c, const OnnxNode& node, const OnnxConstant& x) {
  const bool more = std::any_of(node.outputs.begin() + 1, node.outputs.end(), [](const auto& s) { return !s.empty(); });
  return c.opset() < 14 ? more && x : c.integer(node, "training_mode", 0) != 0;
}

// `x`: what is normalised, where that is known.
Normalisation normalisation_of(const Compiler& c, const OnnxNode& node, std::int64_t channels,
                               const OnnxConstant& x = nullptr) {
  check(c.integer(node, "spatial", 1) == 1, "spatial = 0 is not read");
  Normalisation norm;
  norm.epsilon = c.real(node, "epsilon", 1e-5);
  for (std::size_t k = 1; k <= 4; ++k) {
    const Value& value = c.input(node, k);
    check(value.constant && is_floating(value.type) && value.numel() == channels,
          "its input {} has extents {} for {} channels", k, shape_text(value.dims), channels);
    norm.sources.push_back(value.constant);
  }
  if (takes_own_statistics(c, node, x)) {
    check(x != nullptr,
          "is in training mode: it would take its statistics from each batch of images; export the network after "
          "model.eval(), with running statistics");
    auto [mean, variance] = channel_statistics(*x);
    norm.sources[2] = std::make_shared<const OnnxArray>(std::move(mean));
    norm.sources[3] = std::make_shared<const OnnxArray>(std::move(variance));
  }
  return norm;
}

// A convolution's weights and bias with the normalisation behind it folded in; in f64, rounded once.
void fold_into(Compiler& c, const Normalisation& norm, OnnxConstant& weight, OnnxConstant& bias) {
  std::vector<OnnxConstant> sources = norm.sources;
  sources.push_back(weight);
  if (bias) sources.push_back(bias);
  const std::string what = fmt::format("normalised {}", norm.epsilon);
  const OnnxConstant old_weight = weight, old_bias = bias;
  const auto outputs = static_cast<std::size_t>(weight->dims[0]);
  weight = c.derive(sources, what + " weight", [&] {
    OnnxArray array = *old_weight;
    const std::size_t filter = array.floats.size() / outputs;
    for (std::size_t i = 0; i < array.floats.size(); ++i) {
      array.floats[i] = static_cast<float>(array.floats[i] * norm.scale(i / filter));
    }
    return array;
  });
  bias = c.derive(sources, what + " bias", [&] {
    OnnxArray array = *norm.sources[1];
    for (std::size_t k = 0; k < outputs; ++k) {
      const double shift = (old_bias ? old_bias->floats[k] : 0.0) - static_cast<double>(norm.sources[2]->floats[k]);
      array.floats[k] = static_cast<float>(array.floats[k] + norm.scale(k) * shift);
      // A fused activation may turn NaN into 0: what has gone bad must show here.
      check(std::isfinite(array.floats[k]), "channel {} is not finite with its batch normalisation folded in", k);
    }
    return array;
  });
}

Activation activation_of(const Compiler& c, const OnnxNode& node) {
  if (node.op == "Relu") return Activation::relu;
  if (node.op != "Clip") return Activation::identity;
  for (std::size_t k = 1; k < node.inputs.size(); ++k) {
    const Value* bound = node.inputs[k].empty() ? nullptr : c.find(node.inputs[k]);
    if (!node.inputs[k].empty() && (bound == nullptr || !bound->constant)) return Activation::identity;
  }
  const auto [least, most] = clip_bounds(c, node);
  if (least != 0) return Activation::identity;
  return most == 6 ? Activation::relu6 : most == INFINITY ? Activation::relu : Activation::identity;
}

void convolution(Compiler& c, const OnnxNode& node) {
  Value x = c.on_device(c.input(node, 0));
  check_image(x);
  const Value& w = c.input(node, 1);
  check(is_floating(w.type) && w.dims.size() == 4 && w.numel() > 0, "weights of extents {}", shape_text(w.dims));
  OnnxConstant weight = w.constant, bias;
  if (c.has_input(node, 2)) {
    bias = c.input(node, 2).constant;
    check(is_floating(bias->type) && bias->numel() == w.dims[0], "a bias of extents {} for {} channels",
          shape_text(bias->dims), w.dims[0]);
  }
  const std::int64_t groups = c.integer(node, "group", 1);
  check(groups > 0 && groups <= w.dims[0] && w.dims[0] % groups == 0 && x.dims[1] % groups == 0 &&
            w.dims[1] == x.dims[1] / groups,
        "weights of extents {} in {} groups for an input {}", shape_text(w.dims), groups, shape_text(x.dims));
  Window window = window_of(c, node, x, w.dims[2], w.dims[3]);
  Extents dims = {x.dims[0], w.dims[0], output_extent(x.dims[2], window[0], false),
                  output_extent(x.dims[3], window[1], false)};

  // What follows it and can be done along with it: normalisation, a residual that is there already, an activation.
  std::string name = node.outputs[0];
  const OnnxNode* next = c.sole_consumer(name);
  const auto take = [&] {
    c.absorb(*next);
    name = next->outputs[0];
    next = c.sole_consumer(name);
  };
  if (next != nullptr && next->op == "BatchNormalization" && next->inputs[0] == name &&
      std::all_of(next->inputs.begin() + 1, next->inputs.end(), [&](const std::string& input) {
        const Value* value = c.find(input);
        return value != nullptr && value->constant;
      })) {
    fold_into(c, normalisation_of(c, *next, dims[1]), weight, bias);
    take();
  }
  Value residual;
  if (next != nullptr && next->op == "Add") {
    const Value* other = c.find(next->inputs[next->inputs[0] == name ? 1 : 0]);
    if (other != nullptr && !other->constant && other->dims == dims && has_order(*other, kImageOrder)) {
      residual = *other;
      take();
    }
  }
  Activation act = Activation::identity;
  if (next != nullptr && next->inputs[0] == name) act = activation_of(c, *next);
  if (act != Activation::identity) take();

  if (window[0].before != window[0].after || window[1].before != window[1].after) {
    x = c.padded(x, {0, 0, window[0].before, window[1].before}, {0, 0, window[0].after, window[1].after}, 0);
    for (WindowAxis& axis : window) axis.before = axis.after = 0;
  }
  x = c.in_order(x, kImageOrder);
  const Value y = c.computed(x.type, dims, kImageOrder);
  const OnnxConstant filters = filters_last(c, weight);
  ConvolutionStep step;
  step.x = x.slot;
  step.weight = c.constant_slot(filters, false);
  step.bias = bias ? c.constant_slot(bias, true) : -1;
  step.residual = residual.slot;
  step.y = y.slot;
  step.x_shape = image_shape(x);
  step.weight_shape = {filters->dims[0], filters->dims[1], filters->dims[2], filters->dims[3]};
  step.y_shape = image_shape(y);
  step.act = act;
  step.params.stride_h = static_cast<int>(window[0].stride);
  step.params.stride_w = static_cast<int>(window[1].stride);
  step.params.pad_h = static_cast<int>(window[0].before);
  step.params.pad_w = static_cast<int>(window[1].before);
  step.params.dilation_h = static_cast<int>(window[0].dilation);
  step.params.dilation_w = static_cast<int>(window[1].dilation);
  step.params.groups = static_cast<int>(groups);
  c.add(step);
  c.define(name, y);
}

void batch_normalisation(Compiler& c, const OnnxNode& node) {
  const Value& given = c.input(node, 0);
  check(given.dims.size() >= 2, "an input of extents {}", shape_text(given.dims));
  const Normalisation norm = normalisation_of(c, node, given.dims[1], given.constant);
  Value x = c.on_device(given);
  std::vector<int> order = memory_order(x.strides);
  std::stable_partition(order.begin(), order.end(), [](int axis) { return axis != 1; });
  x = c.in_order(x, order);
  std::string name = node.outputs[0];
  c.require_unused(node);
  NormalisationStep step;
  if (const OnnxNode* next = c.sole_consumer(name); next != nullptr && next->inputs[0] == name) {
    step.act = activation_of(c, *next);
    if (step.act != Activation::identity) {
      c.absorb(*next);
      name = next->outputs[0];
    }
  }
  const Value y = c.computed(x.type, x.dims, order);
  step.x = x.slot;
  step.gamma = c.constant_slot(norm.sources[0], true);
  step.beta = c.constant_slot(norm.sources[1], true);
  step.mean = c.constant_slot(norm.sources[2], true);
  step.variance = c.constant_slot(norm.sources[3], true);
  step.y = y.slot;
  step.x_shape = {x.numel() / std::max<std::int64_t>(1, x.dims[1]), x.dims[1]};
  step.epsilon = norm.epsilon;
  c.add(step);
  c.define(name, y);
}

void pool(Compiler& c, const OnnxNode& node, bool average) {
  Value x = c.on_device(c.input(node, 0));
  check_image(x);
  const Window window = window_of(c, node, x, 0, 0);
  const bool round_up = c.integer(node, "ceil_mode", 0) != 0;
  check(c.integer(node, "storage_order", 0) == 0, "storage_order 1 is not read");
  check(!average || (window[0].dilation == 1 && window[1].dilation == 1), "dilations {}x{} are not read",
        window[0].dilation, window[1].dilation);
  for (const WindowAxis& axis : window) {
    check(std::max(axis.before, axis.after) < axis.kernel, "a padding of {} and {} with a kernel of {}", axis.before,
          axis.after, axis.kernel);
  }
  x = c.in_order(x, kImageOrder);
  const Value y = c.computed(x.type,
                             {x.dims[0], x.dims[1], output_extent(x.dims[2], window[0], round_up),
                              output_extent(x.dims[3], window[1], round_up)},
                             kImageOrder);
  PoolStep step;
  step.average = average;
  step.x = x.slot;
  step.y = y.slot;
  step.x_shape = image_shape(x);
  const auto number = [](std::int64_t v) { return static_cast<int>(v); };
  step.params.kernel_h = number(window[0].kernel);
  step.params.kernel_w = number(window[1].kernel);
  step.params.stride_h = number(window[0].stride);
  step.params.stride_w = number(window[1].stride);
  step.params.pad_h = number(window[0].before);
  step.params.pad_w = number(window[1].before);
  step.params.pad_h_end = number(window[0].after);
  step.params.pad_w_end = number(window[1].after);
  step.params.dilation_h = number(window[0].dilation);
  step.params.dilation_w = number(window[1].dilation);
  step.params.ceil_mode = round_up;
  step.params.count_padding = c.integer(node, "count_include_pad", 0) != 0;
  c.add(step);
  c.define(node, y);
}

void max_pool(Compiler& c, const OnnxNode& node) {
  pool(c, node, false);
}
void average_pool(Compiler& c, const OnnxNode& node) {
  pool(c, node, true);
}

void global_average_pool(Compiler& c, const OnnxNode& node) {
  const Value& x = c.input(node, 0);
  check(x.dims.size() >= 2, "an input of extents {}", shape_text(x.dims));
  std::vector<bool> reduced(x.dims.size(), true);
  reduced[0] = reduced[1] = false;
  c.define(node, c.mean(x, reduced));
}

void global_max_pool(Compiler& c, const OnnxNode& node) {
  Value x = c.on_device(c.input(node, 0));
  check_image(x);
  check(x.numel() > 0 && std::max(x.dims[2], x.dims[3]) <= kMostPixels, "an input of extents {}", shape_text(x.dims));
  x = c.in_order(x, kImageOrder);
  const Value y = c.computed(x.type, {x.dims[0], x.dims[1], 1, 1}, kImageOrder);
  PoolStep step;
  step.x = x.slot;
  step.y = y.slot;
  step.x_shape = image_shape(x);
  step.params.kernel_h = static_cast<int>(x.dims[2]);
  step.params.kernel_w = static_cast<int>(x.dims[3]);
  c.add(step);
  c.define(node, y);
}

}  // namespace

void add_image_lowerings(Lowerings& to) {
  to.insert({{"Conv", convolution},
             {"BatchNormalization", batch_normalisation},
             {"MaxPool", max_pool},
             {"AveragePool", average_pool},
             {"GlobalAveragePool", global_average_pool},
             {"GlobalMaxPool", global_max_pool}});
}

}  // namespace retort::onnx
