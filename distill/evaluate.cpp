#include "distill/evaluate.h"

#include <cmath>
#include <map>

#include "distill/nonfinite.h"
#include "engine/autograd.h"
#include "engine/stream.h"

namespace retort {
namespace {

// visit(input, labels) for the batches in order.
template <typename Visit>
void for_each_batch(const DeviceData& data, std::span<const std::int32_t> indices, const EvaluateOptions& options,
                    Visit visit) {
  const autograd::NoGradGuard no_grad;
  std::map<std::size_t, BatchBuffers> buffers;  // the full size and the last partial one
  for (const auto batch : batches_of(indices, options.batch_size)) {
    if (options.stop_requested && options.stop_requested()) throw Interrupted();
    auto found = buffers.find(batch.size());
    if (found == buffers.end()) {
      found = buffers
                  .try_emplace(batch.size(), data, static_cast<std::int64_t>(batch.size()), options.dtype,
                               options.preprocessing)
                  .first;
    }
    found->second.fill(batch, 0);
    visit(found->second.input, found->second.labels);
  }
}

}  // namespace

Metrics metrics_of(const Tensor& sums) {
  const std::vector<double> s = sums.to_host<double>();
  Metrics metrics;
  metrics.samples = static_cast<std::int64_t>(s[3]);
  if (metrics.samples == 0) return metrics;
  metrics.loss = s[0] / s[3];
  metrics.top1 = s[1] / s[3];
  metrics.top5 = s[2] / s[3];
  return metrics;
}

bool all_finite(const Metrics& metrics) {
  return metrics.nonfinite == 0 && std::isfinite(metrics.loss);
}

Metrics evaluate(const Model& model, const DeviceData& data, std::span<const std::int32_t> indices,
                 const EvaluateOptions& options, std::vector<float>* logits) {
  ForwardMode mode;
  mode.math = options.math;
  const auto network = [&](const Tensor& input) { return model.forward(input, mode).logits; };
  return evaluate(network, data, indices, options, logits);
}

Metrics evaluate(const LogitsOf& network, const DeviceData& data, std::span<const std::int32_t> indices,
                 const EvaluateOptions& options, std::vector<float>* logits) {
  const Tensor compared = Tensor::zeros({3}, DType::f64, data.labels.device());
  const Tensor sums = Tensor::zeros({4}, DType::f64, data.labels.device());
  const Tensor nonfinite = Tensor::zeros({1}, DType::i32, data.labels.device());
  std::size_t number = 0;
  for_each_batch(data, indices, options, [&](const Tensor& input, const Tensor& labels) {
    const Tensor output = network(input);
    if (options.teacher != nullptr) accumulate_agreement(output, options.teacher->at(number++), compared);
    accumulate_metrics(output, labels, sums);
    output.backend().accumulate_nonfinite(output, nonfinite.view(), current_stream(output.device()));
    if (logits) {
      const std::vector<float> values = output.to(DType::f32).to_host<float>();
      logits->insert(logits->end(), values.begin(), values.end());
    }
  });
  Metrics metrics = metrics_of(sums);
  metrics.nonfinite = nonfinite.to_host<std::int32_t>()[0];
  const std::vector<double> c = compared.to_host<double>();
  if (c[2] > 0) {
    metrics.compared = true;
    metrics.agreement = c[0] / c[2];
    metrics.logit_difference = c[1] / c[2];
  }
  return metrics;
}

std::vector<Tensor> evaluate_logits(const LogitsOf& network, const DeviceData& data,
                                    std::span<const std::int32_t> indices, const EvaluateOptions& options) {
  std::vector<Tensor> logits;
  for_each_batch(data, indices, options, [&](const Tensor& input, const Tensor&) { logits.push_back(network(input)); });
  return logits;
}

std::string first_nonfinite(const Model& model, const DeviceData& data, std::span<const std::int32_t> indices,
                            const EvaluateOptions& options) {
  std::string found = first_nonfinite(model.parameters());
  ForwardMode mode;
  mode.math = options.math;
  for_each_batch(data, indices, options, [&](const Tensor& input, const Tensor&) {
    if (found.empty()) found = first_nonfinite(model, input, mode);
  });
  return found;
}

}  // namespace retort
