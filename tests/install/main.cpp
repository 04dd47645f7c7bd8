// Builds a network with the installed libraries and pushes one image through it.
#include <cstdio>

#include "engine/autograd.h"
#include "models/model.h"

int main() {
  const auto model = retort::make_model({.arch = "resnet8", .classes = 10});
  model->parameters().materialize({}, retort::DType::f32, 1);
  const retort::autograd::NoGradGuard no_grad;
  const auto image = retort::Tensor::full({1, 32, 32, 3}, 0.5, retort::DType::f32, {});
  const auto logits = model->forward(image, {}).logits;
  std::printf("%s\n", logits.shape().to_string().c_str());
  return logits.shape() == retort::Shape{1, 10} ? 0 : 1;
}
