// Layers: plain structs that register their parameters when made and apply them when called. Names are torchvision's:
// `prefix.weight`, `prefix.bias`, `prefix.running_mean`, ...
#pragma once

#include <memory>
#include <string>

#include "engine/ops.h"
#include "engine/parameters.h"

namespace retort {

// What a forward pass is for.
struct ForwardMode {
  bool training = false;  // batch statistics and dropout
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
  std::shared_ptr<Parameter> gamma_, beta_;
  std::shared_ptr<Buffer> running_mean_, running_var_, counter_;
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
