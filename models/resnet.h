// Residual networks (He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016).
//
//   resnet10/18/34                four stages 64/128/256/512 of basic blocks, strides 1, 2, 2, 2
//   resnet50/101/152              the same with bottlenecks (expansion 4, the stride on the 3x3 convolution)
//   resnet8/14/20/32/44/56/110    section 4.2 of the paper: three stages 16/32/64, (depth - 2) / 6 basic blocks each
//   resnet8x4, resnet32x4         the same with a stem of 32 and stages 64/128/256, as the distillation papers use them
//
// Taps: stem, layer1, layer2, ... (each also with ".pre"), pooled.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/model.h"

namespace retort {

std::vector<std::string> resnet_names();
std::unique_ptr<Model> make_resnet(const ModelSpec& spec);  // null for a name that is not a ResNet's

}  // namespace retort
