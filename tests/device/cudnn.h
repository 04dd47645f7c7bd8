// The stand-in for cuDNN's backend (graph) interface on the CPU: what kernels/cuda calls of libcudnn. It plans and
// computes from the descriptors alone, refuses what cuDNN's documentation forbids, and queues its work by work.h.
// f32 and bf16 are added up in f32, f64 in f64 (convolve.h). Here is what tests may ask it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace retort::standin {

// Engines by name, one entry for every execution that was accepted since the last call.
std::vector<std::string> take_engines_run();

// Descriptors and handles that nobody has destroyed.
std::size_t live_cudnn_descriptors();
std::size_t live_cudnn_handles();

}  // namespace retort::standin
