// What the trainer sees of a network: its parameters, a forward pass to logits, and taps - feature maps by name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "models/layers.h"

namespace retort {

struct ModelSpec {
  std::string arch = "resnet18";  // one of architecture_names()
  std::int64_t classes = 10;
  std::string stem = "cifar";           // "cifar": 3x3, stride 1; "imagenet": 7x7, stride 2, and max-pool
  std::string shortcut = "projection";  // "projection": 1x1 convolution + BN; "pad": He's parameter-free option A
  bool zero_init_residual = false;      // the last BN gamma of each block starts at 0
};

using TapNames = std::set<std::string>;

struct ModelOutput {
  Tensor logits;                       // T [N, classes]
  std::map<std::string, Tensor> taps;  // those asked for: feature maps T [N, H, W, C]; "pooled" T [N, C]
};

class Model {
 public:
  virtual ~Model() = default;
  // x T [N, H, W, 3]. Asking for an unknown tap throws Error with the names there are.
  virtual ModelOutput forward(const Tensor& x, const ForwardMode& mode, const TapNames& taps = {}) const = 0;
  // A batch is computed as so many images, or a multiple of that.
  virtual std::int64_t images_at_once() const { return 1; }
  // In order of depth. A name with ".pre" is the same map before its ReLU.
  virtual std::vector<std::string> tap_names() const = 0;
  // The taps at the end of each stage, after their last ReLU, in order of depth.
  virtual std::vector<std::string> stage_names() const = 0;

  // Compiles the network for inference from the parameters and statistics that it has now: every ConvNorm becomes one
  // convolution (models/layers.h), the parameters are frozen. From then on forward() in training is an Error, and what
  // is loaded has no effect on the folded layers.
  void fold() { store_.fold(); }
  bool folded() const { return store_.folded(); }
  // All that a forward pass in inference may read besides its input, by name: parameters, statistics, and what fold()
  // has made of them ("layer1.0.conv1.weight" and ".bias" with the normalisation in them; such a name comes twice).
  NamedTensors constants() const;

  const ModelSpec& spec() const { return spec_; }
  ParameterStore& parameters() { return store_; }
  const ParameterStore& parameters() const { return store_; }

 protected:
  explicit Model(ModelSpec spec) : spec_(std::move(spec)) {}
  void check_taps(const TapNames& taps) const;

  ModelSpec spec_;
  LayerStore store_;
};

// Builds and registers; call parameters().materialize() next. Throws Error for an unknown arch (naming the nearest
// known one) or an option that it does not have.
std::unique_ptr<Model> make_model(const ModelSpec& spec);
std::vector<std::string> architecture_names();

}  // namespace retort
