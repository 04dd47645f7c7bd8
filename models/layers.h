// Layers: plain structs that register their parameters when made and apply them when called. Names are torchvision's:
// `prefix.weight`, `prefix.bias`, `prefix.running_mean`, ...
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/parameters.h"

namespace retort {

// The parameters of a network, and what its layers do when they become constants (Model::fold).
class LayerStore : public ParameterStore {
 public:
  // `work` returns the constants that it has made, under the names of the parameters whose place they take.
  void on_fold(std::function<NamedTensors()> work) { folds_.push_back(std::move(work)); }
  // Freezes all parameters and runs what the layers have registered. Once only.
  void fold();
  bool folded() const { return folded_; }
  const NamedTensors& folded_constants() const { return constants_; }

 private:
  std::vector<std::function<NamedTensors()>> folds_;
  NamedTensors constants_;
  bool folded_ = false;
};

// What a forward pass is for.
struct ForwardMode {
  bool training = false;          // batch statistics and dropout
  bool update_statistics = true;  // in training: the running statistics; false for a pass that only measures
  Math math = Math::standard;
  SampleContext samples;  // needed by networks with dropout, in training
};

struct Conv2dOptions {
  int kernel = 3;
  int stride = 1;
  int padding = 1;
  int groups = 1;
  bool bias = false;
};

class Conv2d {
 public:
  Conv2d() = default;
  // Weight [out, kernel, kernel, in / groups], kaiming-normal fan-out; bias PyTorch's default.
  Conv2d(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out,
         const Conv2dOptions& options);
  Tensor operator()(const Tensor& x, const ForwardMode& mode) const;

 private:
  friend class ConvNorm;
  std::shared_ptr<Parameter> weight_, bias_;
  ConvParams params_;
};

// Batch normalisation fused with an optional residual and activation.
class BatchNorm {
 public:
  BatchNorm() = default;
  // gamma starts at `gamma` (0 for the last of a residual block, if wanted), beta at 0.
  BatchNorm(ParameterStore& store, const std::string& name, std::int64_t channels, double gamma = 1.0);
  Tensor operator()(const Tensor& x, const ForwardMode& mode, Activation act = Activation::identity,
                    const Tensor& residual = {}) const;

 private:
  friend class ConvNorm;
  std::shared_ptr<Parameter> gamma_, beta_;
  std::shared_ptr<Buffer> running_mean_, running_var_, counter_;
};

// A convolution and the batch normalisation behind it: y = act(norm(conv(x)) + residual). Once folded, it is one
// convolution with the normalisation in its weights, the rest in its epilogue and nothing kept for a backward.
class ConvNorm {
 public:
  ConvNorm() = default;
  // Parameters `conv`.weight, `norm`.weight, ... in the order in which Conv2d and BatchNorm register them.
  ConvNorm(LayerStore& store, const std::string& conv, const std::string& norm, std::int64_t in, std::int64_t out,
           const Conv2dOptions& options, double gamma = 1.0);
  // Throws Error when a folded layer is asked to train. An x that is moved in is freed as soon as it has been read.
  Tensor operator()(Tensor x, const ForwardMode& mode, Activation act = Activation::identity,
                    const Tensor& residual = {}) const;

 private:
  struct Folded {
    Tensor weight, bias;  // undefined until fold()
  };
  static NamedTensors fold(const Conv2d& conv, const BatchNorm& norm, Folded& to);

  Conv2d conv_;
  BatchNorm norm_;
  std::shared_ptr<Folded> folded_;  // shared, so that a layer may move while its model is built
};

class Linear {
 public:
  Linear() = default;
  // Weight [out, in] and bias [out], PyTorch's default initialisation.
  Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out);
  Tensor operator()(const Tensor& x, const ForwardMode& mode) const;

 private:
  std::shared_ptr<Parameter> weight_, bias_;
};

}  // namespace retort
