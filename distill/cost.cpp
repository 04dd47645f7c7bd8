#include "distill/cost.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/autograd.h"
#include "engine/stream.h"

namespace retort {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kLargestBatch = 256, kMostPasses = 500;
constexpr double kLatencyShare = 0.3;  // of the time

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
  return values[std::max<std::size_t>(rank, 1) - 1];
}

// The times of passes over one batch.
class Stopwatch {
 public:
  Stopwatch(const LogitsOf& network, std::int64_t batch, kernels::ImageSize size, DType dtype, Device device)
      : network_(network),
        device_(device),
        input_(Tensor::full({batch, size.height, size.width, 3}, 0.5, dtype, device)) {}

  double pass() const {
    const autograd::NoGradGuard no_grad;
    const Stream stream = current_stream(device_);
    kernels::Backend& backend = kernels::backend(device_);
    backend.synchronize(stream);
    const auto start = Clock::now();
    const Tensor logits = network_(input_);
    backend.synchronize(stream);
    return seconds_since(start);
  }
  // At least `fewest`, and until `seconds` are over.
  std::vector<double> passes(std::int64_t fewest, double seconds) const {
    std::vector<double> times;
    const auto start = Clock::now();
    while (std::ssize(times) < fewest || (seconds_since(start) < seconds && std::ssize(times) < kMostPasses)) {
      times.push_back(pass());
    }
    return times;
  }

 private:
  const LogitsOf& network_;
  Device device_;
  Tensor input_;
};

}  // namespace

std::int64_t multiply_adds(const Trace& trace) {
  std::int64_t sum = 0;
  for (const TraceStep& step : trace.steps()) {
    if (step.op == "conv2d" || step.op == "conv2d_inference") {
      const Shape& weight = step.inputs[1].shape();  // [O, KH, KW, C / groups]
      sum += step.output.numel() * weight[1] * weight[2] * weight[3];
    } else if (step.op == "linear") {
      sum += step.output.numel() * step.inputs[1].dim(1);  // weight [out, in]
    } else if (step.op == "matmul") {
      sum += step.output.numel() * step.inputs[0].dim(std::get<MatmulAttributes>(step.attributes).transpose_a ? 0 : 1);
    }
  }
  return sum;
}

std::int64_t multiply_adds(const Model& model, std::int64_t height, std::int64_t width) {
  const autograd::NoGradGuard no_grad;
  const ParameterStore& parameters = model.parameters();
  const std::int64_t batch = model.images_at_once();
  const Tensor images = Tensor::zeros({batch, height, width, 3}, parameters.compute(), parameters.device());
  Trace trace({images});
  {
    const TraceGuard guard(trace);
    model.forward(images, {});
  }
  return multiply_adds(trace) / batch;
}

const BatchSpeed& Speed::best() const {
  return *std::max_element(batches.begin(), batches.end(), [](const BatchSpeed& a, const BatchSpeed& b) {
    return a.images_per_second < b.images_per_second;
  });
}

Speed measure_speed(const LogitsOf& network, kernels::ImageSize size, DType dtype, Device device, double seconds) {
  kernels::Backend& backend = kernels::backend(device);
  const auto start = Clock::now();
  Speed speed;
  for (std::int64_t batch = 1; batch <= kLargestBatch; batch *= 2) {
    backend.reset_peak();
    const Stopwatch watch(network, batch, size, dtype, device);
    std::vector<double> times;
    if (batch == 1) {
      watch.passes(3, 0);
      times = watch.passes(10, kLatencyShare * seconds);
      speed.latency_median = quantile(times, 0.5);
      speed.latency_p95 = quantile(times, 0.95);
      speed.latency_passes = std::ssize(times);
    } else {
      // A pass of warm-up and three that count, each as long as two of the batch before.
      const double before = static_cast<double>(batch / 2) / speed.batches.back().images_per_second;
      if (seconds_since(start) + 4 * 2 * before > seconds) break;
      watch.pass();
      times = watch.passes(3, (1 - kLatencyShare) * seconds / 16);
    }
    speed.batches.push_back(
        {batch, static_cast<double>(batch) / quantile(times, 0.5), backend.memory_stats().peak_bytes});
  }
  return speed;
}

}  // namespace retort
