#include "models/onnx_model.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <sstream>

#include "engine/ops.h"
#include "engine/suggest.h"
#include "engine/weight_file.h"
#include "models/onnx/classifier_graph.h"
#include "models/onnx/compiler.h"
#include "models/onnx/execution.h"
#include "models/onnx/runner.h"

namespace retort {
namespace {

using onnx::Plan;
using onnx::Value;

constexpr std::int64_t kUsualSize = 224;  // tried where neither the file nor its metadata give a size

// How a file's input describes images; in memory they are [N, H, W, 3] either way.
enum class Layout : std::uint8_t { channels_first, channels_last };

Extents image_dims(Layout layout, std::int64_t n, std::int64_t height, std::int64_t width) {
  return layout == Layout::channels_first ? Extents{n, 3, height, width} : Extents{n, height, width, 3};
}
Value images(Layout layout, std::int64_t n, std::int64_t height, std::int64_t width) {
  Value x;
  x.dims = image_dims(layout, n, height, width);
  x.strides = layout == Layout::channels_first ? onnx::dense_strides(x.dims, onnx::kImageOrder)
                                               : onnx::row_major_strides(x.dims);
  return x;
}

// Those that the extents of the file's input allow, the likelier first.
std::vector<Layout> layouts_of(const OnnxGraph& graph) {
  check(graph.inputs.size() == 1, "{}: {}", graph.path,
        graph.inputs.empty() ? "its logits depend on none of its inputs"
                             : fmt::format("has {} inputs that its logits depend on; a classifier has one, of images",
                                           graph.inputs.size()));
  const OnnxValueInfo& image = graph.inputs[0];
  std::vector<Layout> layouts;
  if (is_floating(image.type) && !image.ranked) return {Layout::channels_first, Layout::channels_last};
  if (is_floating(image.type) && image.dims.size() == 4) {
    const auto three = [&](std::size_t axis) { return image.dims[axis].value_or(3) == 3; };
    if (three(1)) layouts.push_back(Layout::channels_first);
    if (three(3)) layouts.push_back(Layout::channels_last);
    if (layouts.size() == 2 && image.dims[3] && !image.dims[1]) std::swap(layouts[0], layouts[1]);
  }
  check(!layouts.empty(), "{}: its input {} is not one of floating images [N, 3, H, W] or [N, H, W, 3]", graph.path,
        in_quotes(image.name));
  return layouts;
}

Tensor noise(std::int64_t n, std::int64_t height, std::int64_t width) {
  std::mt19937 engine(1);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(n * height * width * 3));
  // Of different strength, so that no image can be taken for another.
  const std::size_t image = values.size() / static_cast<std::size_t>(n);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = draw(engine) * static_cast<float>(1 + i / image);
  return Tensor::from(values, {n, height, width, 3});
}

}  // namespace

struct OnnxModel::Impl {
  Impl(OnnxGraph graph, const OnnxModelOptions& o)
      : options(o), runner(std::move(graph), {o.device, o.dtype, {o.fuse}}) {}

  const std::string& path() const { return runner.graph().path; }

  void read_size(const OnnxValueInfo& image);
  onnx::Plan compile_all() const;
  bool takes_any_batch();
  ModelOutput forward(const Tensor& x, const ForwardMode& mode, const TapNames& taps);
  ModelOutput forward_in_pieces(const Tensor& x, const ForwardMode& mode, const TapNames& taps);

  OnnxModelOptions options;
  onnx::Runner runner;
  std::string input, logits, note;
  Layout layout = Layout::channels_first;
  bool fixed_batch = false, any_batch = false;
  std::int64_t batch = 1;  // that the file was exported for
  bool fixed_size = false;
  std::int64_t height = 0, width = 0;              // 0: not known
  std::int64_t tried_height = 0, tried_width = 0;  // of the images that it is compiled for at first
  std::vector<std::string> taps, stages;
};

void OnnxModel::Impl::read_size(const OnnxValueInfo& image) {
  height = width = 0;
  fixed_size = false;
  if (image.ranked) {
    const std::size_t first = layout == Layout::channels_first ? 2 : 1;
    fixed_batch = image.dims[0].has_value();
    batch = image.dims[0].value_or(1);
    height = image.dims[first].value_or(0);
    width = image.dims[first + 1].value_or(0);
    fixed_size = height > 0 && width > 0;
  }
  const auto& metadata = runner.graph().metadata;
  if (const auto size = metadata.find("input_size"); !fixed_size && size != metadata.end()) {
    std::istringstream in(size->second);
    std::int64_t rows = 0, columns = 0;
    if (in >> rows >> columns && std::min(rows, columns) > 0 && std::max(rows, columns) < 1 << 16) {
      height = rows;
      width = columns;
    }
  }
  tried_height = height > 0 ? height : kUsualSize;
  tried_width = width > 0 ? width : kUsualSize;
}

// All that there is to know, without fusion; and what cannot be compiled is found. On the host alone.
onnx::Plan OnnxModel::Impl::compile_all() const {
  onnx::CompileOptions plain;
  plain.fuse = false;
  onnx::DerivedConstants derived;
  const Value x = images(layout, batch, tried_height, tried_width);
  onnx::Plan all = onnx::compile(runner.graph(), {{input, x}}, {logits}, plain, derived);
  const Value& result = all.results.at(logits);
  check(!result.constant && result.dims.size() >= 2 && result.dims[0] == batch && result.numel() > 0 &&
            result.numel() == result.dims[0] * result.dims[1],
        "{}: its first output {} is {} for {} images, where logits [N, classes] were expected", path(),
        in_quotes(logits), shape_text(result.dims), batch);
  return all;
}

// Whether other numbers of images than the file was exported for come out as they would by themselves. Where it leaves
// the number free that is believed; where it fixes it, a reshape may mix images without a word, so two are tried
// together and apart, in f32 on the host.
bool OnnxModel::Impl::takes_any_batch() {
  const auto plan_for = [&](onnx::Runner& any, std::int64_t n) {
    const Value x = images(layout, n, tried_height, tried_width);
    const std::shared_ptr<const Plan> plan = any.plan_for(input, x.dims, x.strides, {logits});
    const Extents& dims = plan->results.at(logits).dims;
    check(!dims.empty() && dims[0] == n, "the logits of {} images are {}", n, shape_text(dims));
    return plan;
  };
  try {
    if (!fixed_batch) return plan_for(runner, 2) != nullptr;
    onnx::Runner host(runner.graph(), {{}, DType::f32, {options.fuse}});
    const auto logits_of = [&](const Tensor& x) {
      const auto plan = plan_for(host, x.dim(0));
      return onnx::array_of(plan->results.at(logits), host.execute(*plan, {{input, x}}, Math::standard).at(logits))
          .floats;
    };
    const Shape one = {1, tried_height, tried_width, 3};
    const Tensor pair = noise(2, tried_height, tried_width);
    const std::vector<float> together = logits_of(pair), first = logits_of(pair.slice(0, one).clone()),
                             second = logits_of(pair.slice(one.numel(), one).clone());
    float apart = 0, off = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
      apart = std::max(apart, std::abs(first[i] - second[i]));
      off = std::max({off, std::abs(together[i] - first[i]), std::abs(together[first.size() + i] - second[i])});
    }
    return off <= 0.01F * apart;
  } catch (const Error&) {
    return false;
  }
}

OnnxModel::OnnxModel(OnnxGraph graph, const OnnxModelOptions& options) : Model({}) {
  spec_.arch = "onnx";
  spec_.stem = spec_.shortcut = "";
  const onnx::Head head = onnx::cut_to_logits(graph);
  onnx::register_weights(graph, store_);
  store_.keep_elsewhere(options.device, options.dtype);
  const std::vector<Layout> layouts = layouts_of(graph);

  impl_ = std::make_unique<Impl>(std::move(graph), options);
  const OnnxValueInfo image = impl_->runner.graph().inputs[0];
  onnx::check_folded(impl_->runner.graph());
  impl_->input = image.name;
  impl_->logits = head.logits;
  impl_->note = head.note;
  std::optional<Plan> all;
  std::string problem;
  for (const Layout layout : layouts) {
    impl_->layout = layout;
    impl_->read_size(image);
    try {
      all = impl_->compile_all();
      break;
    } catch (const Error& error) {
      if (problem.empty()) problem = error.what();
    }
  }
  if (!all && layouts.size() == 2) problem += " (whether its images are [N, 3, H, W] or [N, H, W, 3])";
  if (!all) throw Error(problem);

  const std::int64_t batch = impl_->batch;
  const Value& result = all->results.at(head.logits);
  spec_.classes = result.dims[1];
  for (const auto& [name, value] : all->computed) {
    const bool usable = (value.dims.size() == 2 || value.dims.size() == 4) && value.dims[0] == batch;
    if (usable) impl_->taps.push_back(name);
  }
  const Value x = images(impl_->layout, batch, impl_->tried_height, impl_->tried_width);
  const std::shared_ptr<const Plan> fused = impl_->runner.plan_for(image.name, x.dims, x.strides, {head.logits});
  std::pair<std::int64_t, std::int64_t> size(0, 0);
  for (const auto& [name, value] : fused->computed) {
    if (value.dims.size() != 4 || value.dims[2] * value.dims[3] <= 1 || value.dims[0] != batch) continue;
    const std::pair<std::int64_t, std::int64_t> here(value.dims[2], value.dims[3]);
    if (here == size && !impl_->stages.empty()) {
      impl_->stages.back() = name;
    } else {
      impl_->stages.push_back(name);
    }
    size = here;
  }

  impl_->any_batch = impl_->takes_any_batch();
  if (!impl_->any_batch) {
    impl_->note += impl_->note.empty() ? "" : "; ";
    impl_->note += batch == 1 ? "its graph is for one image at a time, and runs once for each"
                              : fmt::format("its graph is for {} images at a time, and runs once for so many", batch);
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
  const bool at_once = impl_->any_batch || x.dim(0) == impl_->batch;
  return at_once ? impl_->forward(x, mode, taps) : impl_->forward_in_pieces(x, mode, taps);
}

ModelOutput OnnxModel::Impl::forward(const Tensor& x, const ForwardMode& mode, const TapNames& asked) {
  const std::int64_t n = x.dim(0);
  std::vector<std::string> wanted(asked.begin(), asked.end());
  if (asked.count(logits) == 0) wanted.push_back(logits);
  const Value in = images(layout, n, x.dim(1), x.dim(2));
  const std::shared_ptr<const Plan> plan = runner.plan_for(input, in.dims, in.strides, wanted);
  const auto results = runner.execute(*plan, {{input, x.to(options.dtype)}}, mode.math);
  const auto tensor = [&](const std::string& name) {
    const Value& value = plan->results.at(name);
    const Extents& d = value.dims;
    check(!d.empty() && d[0] == n, "{}: {} is {} for {} images", path(), in_quotes(name), shape_text(d), n);
    if (d.size() == 4 && name != logits) {
      return onnx::tensor_of(value, results.at(name), onnx::kImageOrder, {d[0], d[2], d[3], d[1]});
    }
    return onnx::tensor_of(value, results.at(name), onnx::plain_order(d.size()), {n, value.numel() / n});
  };
  ModelOutput output;
  output.logits = tensor(logits);
  for (const std::string& tap : asked) output.taps[tap] = tensor(tap);
  return output;
}

// As many images at a time as the file is for; blank ones fill the last piece up.
ModelOutput OnnxModel::Impl::forward_in_pieces(const Tensor& x, const ForwardMode& mode, const TapNames& asked) {
  const std::int64_t n = x.dim(0), image = x.numel() / std::max<std::int64_t>(1, n);
  std::vector<Tensor> rows;
  std::map<std::string, std::vector<Tensor>> maps;
  for (std::int64_t begin = 0; begin < n; begin += batch) {
    const std::int64_t count = std::min(batch, n - begin);
    Tensor piece = x.slice(begin * image, {count, x.dim(1), x.dim(2), 3}).clone();
    if (count < batch) {
      piece = concatenate({piece, Tensor::zeros({batch - count, x.dim(1), x.dim(2), 3}, x.dtype(), x.device())}, 0);
    }
    const ModelOutput output = forward(piece, mode, asked);
    rows.push_back(output.logits);
    for (const auto& [name, tap] : output.taps) maps[name].push_back(tap);
  }
  const auto joined = [&](const std::vector<Tensor>& pieces) {
    const Tensor all = concatenate(pieces, 0);
    Shape shape = all.shape();
    shape[0] = n;
    return all.slice(0, shape);
  };
  ModelOutput output;
  output.logits = joined(rows);
  for (const auto& [name, pieces] : maps) output.taps[name] = joined(pieces);
  return output;
}

std::int64_t OnnxModel::images_at_once() const {
  return impl_->any_batch ? 1 : impl_->batch;
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
