// What a network costs: its work counted, its time and memory measured.
#pragma once

#include <cstdint>
#include <vector>

#include "distill/evaluate.h"
#include "engine/trace.h"

namespace retort {

// Multiply-adds of the convolutions and matrix products that a trace has recorded; additions of biases, normalisation,
// activations and pooling do not count. torchvision's tables call the same number "GFLOPS".
std::int64_t multiply_adds(const Trace& trace);

// Of a forward pass of one image [1, height, width, 3], which it runs.
std::int64_t multiply_adds(const Model& model, std::int64_t height, std::int64_t width);

struct BatchSpeed {
  std::int64_t batch = 0;
  double images_per_second = 0;  // of the median pass
  std::size_t peak_bytes = 0;    // in tensors at once, weights included
};

struct Speed {
  double latency_median = 0, latency_p95 = 0;  // seconds of a pass with one image
  std::int64_t latency_passes = 0;
  std::vector<BatchSpeed> batches;  // 1, 2, 4 ... 256, as far as the time sufficed

  const BatchSpeed& best() const;
};

// Times passes over a constant batch from the call until the device is done, after a warm-up. Takes about `seconds`,
// or as long as the few passes need that are done in any case: at batch 1 three of warm-up and ten that count.
Speed measure_speed(const LogitsOf& network, kernels::ImageSize size, DType dtype, Device device, double seconds);

}  // namespace retort
