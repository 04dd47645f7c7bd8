// A data set on a device, and the buffers through which batches reach the network.
//
// A step is: set() copies the indices and the epoch to the device, produce() queues the kernels that gather, augment
// and normalise. produce() touches only the fixed buffers, so it may be part of a captured graph that is replayed after
// each set().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "engine/tensor.h"
#include "kernels/augment.h"

namespace retort {

struct DeviceData {
  Tensor images;  // u8 [N, H, W, 3]
  Tensor labels;  // i32 [N]

  static DeviceData upload(const ImageSet& set, Device device);
  std::int64_t count() const { return labels.dim(0); }
};

class BatchBuffers {
 public:
  // `size` images a batch, of type `dtype` (f64, f32 or bf16), on the data's device. Validation and test pass params
  // without steps.
  BatchBuffers(const DeviceData& data, std::int64_t size, DType dtype, const kernels::AugmentParams& params);

  std::int64_t size() const { return indices.dim(0); }
  // Host to device; exactly size() indices, each below data.count(). Not for capture.
  void set(std::span<const std::int32_t> batch, int epoch_number);
  // Fills input and labels for the indices and the epoch last set.
  void produce() const;
  void fill(std::span<const std::int32_t> batch, int epoch_number) {
    set(batch, epoch_number);
    produce();
  }

  Tensor indices;  // i32 [B]: positions in the data set, which are also the sample ids of dropout
  Tensor epoch;    // i32 [1]
  Tensor input;    // dtype [B, H, W, 3]
  Tensor labels;   // i32 [B]

 private:
  DeviceData data_;
  kernels::AugmentParams params_;
};

// The pieces of an epoch's order: all of `size`, the last one smaller where it does not divide.
std::vector<std::span<const std::int32_t>> batches_of(std::span<const std::int32_t> order, std::int64_t size,
                                                      bool drop_last = false);

}  // namespace retort
