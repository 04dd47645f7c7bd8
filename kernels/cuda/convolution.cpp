#include "kernels/cuda/convolution.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/direct_convolution.h"
#include "kernels/cuda/native.h"
#include "kernels/error.h"

namespace retort::kernels {
namespace {

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// cuDNN takes inputs and outputs through the same list of plain pointers.
View writable(ConstView view) {
  return {const_cast<void*>(view.data), view.dtype, view.shape};
}

bool is_memory_shortage(cudnnStatus_t status) {
  return status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
         status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
}

}  // namespace

Convolutions::Convolutions(Backend& kernels, DeviceMemory& memory, const std::string& context)
    : kernels_(kernels),
      memory_(memory),
      choices_(environment("RETORT_CUDNN_PLANS"), context),
      log_(*environment("RETORT_CUDNN_LOG") == '1') {
  add_stream(nullptr);
}

void Convolutions::add_stream(cudaStream_t stream) {
  const std::scoped_lock lock(mutex_);
  handle_for(stream);
}

void Convolutions::remove_stream(cudaStream_t stream) noexcept {
  const std::scoped_lock lock(mutex_);
  handles_.erase(stream);
}

cudnnHandle_t Convolutions::handle_for(cudaStream_t stream) {
  CudnnHandle& handle = handles_[stream];
  if (!handle) {
    const RelaxedCapture relaxed;
    RETORT_CALL(cudnnCreate(handle.out()));
    RETORT_CALL(cudnnSetStream(handle.get(), stream));
  }
  return handle.get();
}

void Convolutions::forward(ConstView x, ConstView w, const ConvEpilogue& epilogue, const ConvParams& params, View y,
                           Stream stream) {
  if (y.numel() == 0) return;
  run({make_conv_key(ConvDirection::forward, x.dtype, x.shape, w.shape, y.shape, params, epilogue,
                     common_alignment({x.data, w.data, y.data, epilogue.bias.data, epilogue.residual.data})),
       params, writable(x), writable(w), y, epilogue, stream});
}

void Convolutions::backward_data(ConstView dy, ConstView w, const ConvParams& params, bool accumulate, View dx,
                                 Stream stream) {
  if (dx.numel() == 0) return;
  ConvKey key = make_conv_key(ConvDirection::backward_data, dy.dtype, dx.shape, w.shape, dy.shape, params, {},
                              common_alignment({dx.data, w.data, dy.data}));
  key.accumulate = accumulate;
  run({key, params, dx, writable(w), writable(dy), {}, stream});
}

void Convolutions::backward_weights(ConstView x, ConstView dy, const ConvParams& params, View dw, Stream stream) {
  if (dw.numel() == 0) return;
  if (x.numel() == 0) {
    RETORT_CALL(cudaMemsetAsync(dw.data, 0, dw.bytes(), native(stream)));
    return;
  }
  run({make_conv_key(ConvDirection::backward_weights, x.dtype, x.shape, dw.shape, dy.shape, params, {},
                     common_alignment({x.data, dw.data, dy.data})),
       params,
       writable(x),
       dw,
       writable(dy),
       {},
       stream});
}

void Convolutions::run(const Call& call) {
  const std::scoped_lock lock(mutex_);
  const cudnnHandle_t handle = handle_for(native(call.stream));
  auto found = plans_.find(call.key);
  if (found == plans_.end()) {
    const RelaxedCapture relaxed;
    found = plans_.emplace(call.key, choose(call, handle)).first;
  }
  Choice& choice = found->second;
  while (choice.plan) {
    const cudnnStatus_t status = execute(choice, call, handle);
    if (status == CUDNN_STATUS_SUCCESS) break;
    // Which plan is used must not depend on how much memory happens to be free.
    if (is_memory_shortage(status)) fail("conv2d: cudnnBackendExecute: {}; {}", describe(status), memory_.summary());
    if (choice.proven) fail("conv2d: cudnnBackendExecute({}): {}", call.key.to_string(), describe(status));
    if (log_) fmt::print(stderr, "cudnn: {}: {} fails: {}\n", call.key.to_string(), choice.tag, describe(status));
    const RelaxedCapture relaxed;
    take_next(choice);
  }
  if (!choice.proven) {
    choice.proven = true;
    choice.drop_the_others();
    if (log_) fmt::print(stderr, "cudnn: {}: {}\n", call.key.to_string(), choice.tag);
  }
  if (choice.plan) return;
  switch (call.key.direction) {
    case ConvDirection::forward:
      direct_conv2d(call.x, call.w, call.epilogue, call.params, call.y, call.stream);
      break;
    case ConvDirection::backward_data:
      direct_conv2d_backward_data(call.y, call.w, call.params, call.x, call.stream, call.key.accumulate);
      break;
    case ConvDirection::backward_weights:
      direct_conv2d_backward_weights(call.x, call.y, call.params, call.w, call.stream);
      break;
  }
}

void Convolutions::Choice::drop_the_others() {
  // The plan's own engine and the graphs stay: cuDNN does not say whether a plan goes on referring to them.
  if (plan && next > 1) std::swap(candidates.front(), candidates[next - 1]);
  candidates.erase(candidates.begin() + (plan ? 1 : 0), candidates.end());
  if (!plan) graphs.clear();
}

cudnnStatus_t Convolutions::execute(const Choice& choice, const Call& call, cudnnHandle_t handle) {
  const ScratchMemory workspace(memory_, choice.plan->workspace_bytes(), native(call.stream));
  const ConvEpilogue& e = call.epilogue;
  const bool round_bias = choice.fused && e.bias && call.y.dtype == DType::bf16;
  const ScratchMemory rounded(memory_, round_bias ? e.bias.numel() * sizeof(bf16) : 0, native(call.stream));
  void* bias = choice.fused ? writable(e.bias).data : nullptr;
  void* residual = choice.fused ? writable(e.residual).data : nullptr;
  if (round_bias) {
    bias = rounded.data();
    kernels_.convert(e.bias, {bias, DType::bf16, e.bias.shape}, call.stream);
  }
  const RelaxedCapture relaxed;  // the first run of an engine may load its kernels
  const cudnnStatus_t status =
      choice.plan->execute(handle, call.x.data, call.w.data, call.y.data, bias, residual, workspace.data());
  if (status == CUDNN_STATUS_SUCCESS && !choice.fused && !e.empty()) bias_residual_activation(e, call.y, call.stream);
  return status;
}

Convolutions::Choice Convolutions::choose(const Call& call, cudnnHandle_t handle) {
  Choice choice;
  collect_candidates(choice, call.key, handle);
  if (choices_.enabled() && !choice.candidates.empty()) {
    const std::string key = call.key.to_string();
    std::optional<std::string> wanted = choices_.find(key);
    if (!wanted && !is_capturing(native(call.stream))) wanted = measure(choice, call, handle);
    // What a recording has to take unmeasured is remembered too: the next process might meet the key outside one.
    wanted = choices_.record(key, wanted.value_or(choice.candidates.front().tag()));
    const auto first = choice.candidates.begin();
    const auto match =
        std::find_if(first, choice.candidates.end(), [&](const Candidate& c) { return c.tag() == *wanted; });
    if (match != choice.candidates.end()) std::rotate(first, match, match + 1);
  }
  choice.next = 0;
  take_next(choice);
  return choice;
}

void Convolutions::collect_candidates(Choice& choice, const ConvKey& key, cudnnHandle_t handle) {
  const bool rounds_bias = key.bias && key.dtype == DType::bf16 && key.math == Math::strict;
  // cuDNN 9.19 fuses ReLU6 in one engine of last resort: a fast convolution and a kernel of ours must be better.
  const bool worth_fusing = key.has_epilogue() && key.act != Activation::relu6;
  for (const bool fused : {true, false}) {
    if (fused && (!worth_fusing || rounds_bias)) continue;
    try {
      const ConvGraph& graph = choice.graphs.emplace_back(handle, key, fused);
      for (EngineConfig& engine : propose_engines(graph)) {
        if (is_allowed(engine, key)) choice.candidates.push_back({std::move(engine), fused});
      }
    } catch (const Error& error) {  // cuDNN does not know this graph: the next one, or the direct kernels
      if (log_) fmt::print(stderr, "cudnn: {}: {}\n", key.to_string(), error.what());
    }
  }
}

bool Convolutions::take_next(Choice& choice) {
  choice.plan.reset();
  choice.tag = "direct";
  while (choice.next < choice.candidates.size()) {
    const Candidate& candidate = choice.candidates[choice.next++];
    try {
      choice.plan.emplace(candidate.engine);
    } catch (const Error& error) {
      if (log_) fmt::print(stderr, "cudnn: {} cannot be built: {}\n", candidate.tag(), error.what());
      continue;
    }
    if (choice.plan->workspace_bytes() <= kWorkspaceLimit) {
      choice.fused = candidate.fused;
      choice.tag = candidate.tag();
      return true;
    }
    choice.plan.reset();
  }
  return false;
}

// The tag of the fastest of the first few candidates, by the best of several runs; nothing when none runs. Each run
// writes the output anew, so the outcome of the call is that of the run which follows; where it would add to the output,
// trials have one of their own.
std::optional<std::string> Convolutions::measure(Choice& choice, Call call, cudnnHandle_t handle) {
  constexpr int kRuns = 5;
  const cudaStream_t stream = native(call.stream);
  const ScratchMemory trial(memory_, call.key.accumulate ? call.x.bytes() : 0, stream);
  if (call.key.accumulate) call.x.data = trial.data();
  EventHandle start;
  EventHandle stop;
  RETORT_CALL(cudaEventCreate(start.out()));
  RETORT_CALL(cudaEventCreate(stop.out()));
  std::optional<std::string> best;
  float best_time = std::numeric_limits<float>::infinity();
  choice.next = 0;
  for (int tried = 0; tried < kMeasured && take_next(choice); ++tried) {
    if (execute(choice, call, handle) != CUDNN_STATUS_SUCCESS) continue;  // also warms up
    float time = std::numeric_limits<float>::infinity();
    for (int i = 0; i < kRuns; ++i) {
      RETORT_CALL(cudaEventRecord(start.get(), stream));
      execute(choice, call, handle);
      RETORT_CALL(cudaEventRecord(stop.get(), stream));
      RETORT_CALL(cudaEventSynchronize(stop.get()));
      float milliseconds = 0;
      RETORT_CALL(cudaEventElapsedTime(&milliseconds, start.get(), stop.get()));
      time = std::min(time, milliseconds);
    }
    if (log_) fmt::print(stderr, "cudnn: {}: {} takes {} ms\n", call.key.to_string(), choice.tag, time);
    if (time < best_time) {
      best_time = time;
      best = choice.tag;
    }
  }
  return best;
}

}  // namespace retort::kernels
