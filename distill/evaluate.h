// Accuracy of a network on a data set: no augmentation, running statistics, every sample once.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"
#include "models/model.h"

namespace retort {

struct Metrics {
  double loss = 0;  // mean cross-entropy, unsmoothed
  double top1 = 0;  // fractions of the samples, 0 .. 1
  double top5 = 0;
  std::int64_t samples = 0;
  std::int64_t nonfinite = 0;  // logits that are NaN or infinite; a finite loss does not rule them out
  // Beside a teacher, where one was given.
  bool compared = false;
  double agreement = 0;         // fraction of the samples on which both choose the same class
  double logit_difference = 0;  // mean over samples and classes of |difference|
};

// Whether the loss and all logits are finite.
bool all_finite(const Metrics& metrics);

// Thrown by what stops halfway because it was asked to; nothing that it would have changed has changed.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// From the network's input T [B, H, W, 3] to logits T [B, classes].
using LogitsOf = std::function<Tensor(const Tensor&)>;

// The mean over what accumulate_metrics has summed in f64 [4].
Metrics metrics_of(const Tensor& sums);

struct EvaluateOptions {
  std::int64_t batch_size = 256;
  DType dtype = DType::f32;  // of the input and the activations
  Math math = Math::standard;
  kernels::AugmentParams preprocessing;  // normalisation; its steps must be empty
  // To compare with, or null: a teacher's evaluate_logits() of the same samples in batches of the same size.
  const std::vector<Tensor>* teacher = nullptr;
  std::function<bool()> stop_requested;  // asked before every batch; may be empty. Yes: Interrupted is thrown
};

// Over the samples `indices` of `data`. With `logits`, appends those of every sample in order, row by row.
Metrics evaluate(const Model& model, const DeviceData& data, std::span<const std::int32_t> indices,
                 const EvaluateOptions& options, std::vector<float>* logits = nullptr);
Metrics evaluate(const LogitsOf& network, const DeviceData& data, std::span<const std::int32_t> indices,
                 const EvaluateOptions& options, std::vector<float>* logits = nullptr);

// The logits [B, classes] of every batch, on the device, for EvaluateOptions::teacher.
std::vector<Tensor> evaluate_logits(const LogitsOf& network, const DeviceData& data,
                                    std::span<const std::int32_t> indices, const EvaluateOptions& options);

// For a message about metrics that are not finite: the first tensor in which a NaN or an infinity shows - a parameter,
// a buffer, or a feature map or the logits of the first batch that has one.
std::string first_nonfinite(const Model& model, const DeviceData& data, std::span<const std::int32_t> indices,
                            const EvaluateOptions& options);

}  // namespace retort
