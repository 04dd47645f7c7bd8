#include "models/resnet.h"

#include <algorithm>

namespace retort {
namespace {

struct Family {
  const char* name;
  bool bottleneck;
  bool small;  // three stages for 32x32 images; only the "cifar" stem
  std::int64_t stem_channels;
  std::vector<std::int64_t> widths;
  std::vector<int> blocks;
};

const std::vector<Family>& families() {
  static const std::vector<Family> all = [] {
    const std::vector<std::int64_t> wide{64, 128, 256, 512}, narrow{16, 32, 64}, narrow_x4{64, 128, 256};
    return std::vector<Family>{
        {"resnet10", false, false, 64, wide, {1, 1, 1, 1}},    {"resnet18", false, false, 64, wide, {2, 2, 2, 2}},
        {"resnet34", false, false, 64, wide, {3, 4, 6, 3}},    {"resnet50", true, false, 64, wide, {3, 4, 6, 3}},
        {"resnet101", true, false, 64, wide, {3, 4, 23, 3}},   {"resnet152", true, false, 64, wide, {3, 8, 36, 3}},
        {"resnet8", false, true, 16, narrow, {1, 1, 1}},       {"resnet14", false, true, 16, narrow, {2, 2, 2}},
        {"resnet20", false, true, 16, narrow, {3, 3, 3}},      {"resnet32", false, true, 16, narrow, {5, 5, 5}},
        {"resnet44", false, true, 16, narrow, {7, 7, 7}},      {"resnet56", false, true, 16, narrow, {9, 9, 9}},
        {"resnet110", false, true, 16, narrow, {18, 18, 18}},  {"resnet8x4", false, true, 32, narrow_x4, {1, 1, 1}},
        {"resnet32x4", false, true, 32, narrow_x4, {5, 5, 5}},
    };
  }();
  return all;
}

// He's option A: every stride-th pixel, new channels zero, half of them on either side as the published CIFAR-10
// networks have them.
Tensor pad_shortcut(const Tensor& x, int stride, std::int64_t channels) {
  PoolParams subsample;
  subsample.stride_h = subsample.stride_w = stride;
  const Tensor small = stride == 1 ? x : average_pool(x, subsample);
  const std::int64_t extra = channels - x.dim(3), before = extra / 2, after = extra - before;
  const auto zeros = [&](std::int64_t n) {
    return Tensor::zeros({small.dim(0), small.dim(1), small.dim(2), n}, x.dtype(), x.device());
  };
  if (extra == 0) return small;
  std::vector<Tensor> parts;
  if (before > 0) parts.push_back(zeros(before));
  parts.push_back(small);
  parts.push_back(zeros(after));
  return concatenate(parts, 3);
}

class Block {
 public:
  Block(LayerStore& store, const std::string& name, std::int64_t in, std::int64_t width, int stride, bool bottleneck,
        const ModelSpec& spec)
      : in_(in), out_(bottleneck ? 4 * width : width), stride_(stride) {
    const std::int64_t channels[] = {in, width, bottleneck ? width : out_, out_};
    const int convolutions = bottleneck ? 3 : 2;
    for (int i = 0; i < convolutions; ++i) {
      Conv2dOptions options;
      const bool pointwise = bottleneck && i != 1;
      options.kernel = pointwise ? 1 : 3;
      options.padding = pointwise ? 0 : 1;
      options.stride = i == (bottleneck ? 1 : 0) ? stride : 1;
      const bool last = i + 1 == convolutions;
      const std::string number = std::to_string(i + 1);
      layers_.emplace_back(store, name + ".conv" + number, name + ".bn" + number, channels[i],
                           last ? out_ : channels[i + 1], options, last && spec.zero_init_residual ? 0.0 : 1.0);
    }
    projects_ = spec.shortcut == "projection" && !is_identity();
    if (projects_) {
      Conv2dOptions options;
      options.kernel = 1;
      options.padding = 0;
      options.stride = stride;
      projection_ = ConvNorm(store, name + ".downsample.0", name + ".downsample.1", in, out_, options);
    }
  }

  std::int64_t out_channels() const { return out_; }

  // With `pre` given, the sum before the last ReLU is kept there, at the price of one unfused pass.
  Tensor operator()(const Tensor& x, const ForwardMode& mode, Tensor* pre) const {
    Tensor y = x;
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) y = layers_[i](std::move(y), mode, Activation::relu);
    const Tensor residual = shortcut(x, mode);
    if (pre == nullptr) return layers_.back()(std::move(y), mode, Activation::relu, residual);
    *pre = layers_.back()(std::move(y), mode, Activation::identity, residual);
    return relu(*pre);
  }

 private:
  bool is_identity() const { return in_ == out_ && stride_ == 1; }

  Tensor shortcut(const Tensor& x, const ForwardMode& mode) const {
    if (projects_) return projection_(x, mode);
    return is_identity() ? x : pad_shortcut(x, stride_, out_);
  }

  std::int64_t in_, out_;
  int stride_;
  bool projects_ = false;
  std::vector<ConvNorm> layers_;
  ConvNorm projection_;
};

class ResNet final : public Model {
 public:
  ResNet(const ModelSpec& spec, const Family& family) : Model(spec), imagenet_stem_(spec.stem == "imagenet") {
    Conv2dOptions stem;
    if (imagenet_stem_) stem = {.kernel = 7, .stride = 2, .padding = 3};
    stem_ = ConvNorm(store_, "conv1", "bn1", 3, family.stem_channels, stem);
    std::int64_t channels = family.stem_channels;
    for (std::size_t s = 0; s < family.widths.size(); ++s) {
      std::vector<Block> stage;
      for (int b = 0; b < family.blocks[s]; ++b) {
        const std::string name = "layer" + std::to_string(s + 1) + "." + std::to_string(b);
        const int stride = b == 0 && s > 0 ? 2 : 1;
        stage.emplace_back(store_, name, channels, family.widths[s], stride, family.bottleneck, spec);
        channels = stage.back().out_channels();
      }
      stages_.push_back(std::move(stage));
    }
    fc_ = Linear(store_, "fc", channels, spec.classes);
  }

  std::vector<std::string> tap_names() const override {
    std::vector<std::string> names{"stem.pre", "stem"};
    for (std::size_t s = 1; s <= stages_.size(); ++s) {
      names.push_back("layer" + std::to_string(s) + ".pre");
      names.push_back("layer" + std::to_string(s));
    }
    names.push_back("pooled");
    return names;
  }

  std::vector<std::string> stage_names() const override {
    std::vector<std::string> names;
    for (std::size_t s = 1; s <= stages_.size(); ++s) names.push_back("layer" + std::to_string(s));
    return names;
  }

  ModelOutput forward(const Tensor& input, const ForwardMode& mode, const TapNames& taps) const override {
    check_taps(taps);
    ModelOutput out;
    const auto keep = [&](const std::string& name, const Tensor& value) {
      if (taps.contains(name)) out.taps[name] = value;
    };
    Tensor x;
    if (taps.contains("stem.pre")) {
      const Tensor pre = stem_(input, mode);
      keep("stem.pre", pre);
      x = relu(pre);
    } else {
      x = stem_(input, mode, Activation::relu);
    }
    keep("stem", x);
    if (imagenet_stem_) x = max_pool(x, {3, 3, 2, 2, 1, 1});
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      const std::string name = "layer" + std::to_string(s + 1);
      for (std::size_t b = 0; b < stages_[s].size(); ++b) {
        Tensor pre;
        const bool wants_pre = b + 1 == stages_[s].size() && taps.contains(name + ".pre");
        x = stages_[s][b](x, mode, wants_pre ? &pre : nullptr);
        if (wants_pre) keep(name + ".pre", pre);
      }
      keep(name, x);
    }
    x = global_average_pool(x);
    keep("pooled", x);
    out.logits = fc_(x, mode);
    return out;
  }

 private:
  bool imagenet_stem_;
  ConvNorm stem_;
  std::vector<std::vector<Block>> stages_;
  Linear fc_;
};

}  // namespace

std::vector<std::string> resnet_names() {
  std::vector<std::string> names;
  for (const Family& family : families()) names.emplace_back(family.name);
  return names;
}

std::unique_ptr<Model> make_resnet(const ModelSpec& spec) {
  const auto family =
      std::find_if(families().begin(), families().end(), [&](const Family& f) { return spec.arch == f.name; });
  if (family == families().end()) return nullptr;
  check(spec.stem == "cifar" || spec.stem == "imagenet", "{}: unknown stem \"{}\"; known: cifar, imagenet", spec.arch,
        spec.stem);
  check(spec.stem == "cifar" || !family->small, "{}: has no \"imagenet\" stem, it is made for 32x32 images", spec.arch);
  check(spec.shortcut == "projection" || spec.shortcut == "pad", "{}: unknown shortcut \"{}\"; known: projection, pad",
        spec.arch, spec.shortcut);
  return std::make_unique<ResNet>(spec, *family);
}

}  // namespace retort
