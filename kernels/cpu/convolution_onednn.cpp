// Direct convolution through oneDNN. Activations stay NHWC and are never reordered; oneDNN picks its own layout for
// the weights, which are reordered on every call (they are small against the activations).
#include <memory>
#include <mutex>
#include <unordered_map>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/convolution.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/parallel.h"

namespace retort::kernels {
namespace {

using dnnl::memory;

struct Key {
  ConvGeometry geometry;
  ConvPass pass;
  bool bias;
  Activation act;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    const ConvGeometry& g = key.geometry;
    std::size_t hash = (static_cast<std::size_t>(key.pass) * 2 + (key.bias ? 1 : 0)) * 3;
    hash += static_cast<std::size_t>(key.act);
    for (std::int64_t value : {g.n, g.h, g.w, g.c, g.oh, g.ow, g.o, g.kh, g.kw, g.stride_h, g.stride_w, g.pad_h,
                               g.pad_w, g.dilation_h, g.dilation_w, g.groups}) {
      hash = hash * 1000003u + static_cast<std::size_t>(value);
    }
    return hash;
  }
};

// One direction of one shape, compiled.
struct Compiled {
  dnnl::primitive primitive;
  dnnl::reorder reorder;  // of the weights, to or from oneDNN's layout; empty where that is ours
  memory::desc source, plain_weights, weights, bias, destination, scratchpad;
};

memory::desc plain(const memory::dims& dims, memory::format_tag tag) {
  return {dims, memory::data_type::f32, tag};
}

// [O, KH, KW, I / groups] in memory, in the logical order that oneDNN wants.
memory::desc plain_weights_desc(const ConvGeometry& g) {
  const std::int64_t i = g.c / g.groups, o = g.o / g.groups;
  const std::int64_t filter = g.kh * g.kw * i;
  if (g.groups == 1) return {{o, i, g.kh, g.kw}, memory::data_type::f32, memory::dims{filter, 1, g.kw * i, i}};
  return {{g.groups, o, i, g.kh, g.kw}, memory::data_type::f32, memory::dims{o * filter, filter, 1, g.kw * i, i}};
}

std::shared_ptr<const Compiled> compile(const Key& key) {
  const ConvGeometry& g = key.geometry;
  auto result = std::make_shared<Compiled>();
  result->source = plain({g.n, g.c, g.h, g.w}, memory::format_tag::nhwc);
  result->destination = plain({g.n, g.o, g.oh, g.ow}, memory::format_tag::nhwc);
  result->plain_weights = plain_weights_desc(g);
  if (key.bias) result->bias = plain({g.o}, memory::format_tag::x);

  onednn::ConvolutionArgs args;
  args.source = result->source;
  args.destination = result->destination;
  const std::int64_t i = g.c / g.groups, o = g.o / g.groups;
  args.weights = g.groups == 1 ? plain({o, i, g.kh, g.kw}, memory::format_tag::any)
                               : plain({g.groups, o, i, g.kh, g.kw}, memory::format_tag::any);
  args.bias = result->bias;
  args.strides = {g.stride_h, g.stride_w};
  args.dilation = {g.dilation_h - 1, g.dilation_w - 1};
  args.padding = {g.pad_h, g.pad_w};
  args.act = key.act;
  args.padding_after = args.padding;  // oneDNN rounds the output's extent down, as we do

  const auto forward = onednn::forward_desc(args);
  const auto adopt = [&](const auto& desc, const memory::desc& weights, auto make) {
    result->weights = weights;
    result->scratchpad = desc.scratchpad_desc();
    result->primitive = make(desc);
  };
  switch (key.pass) {
    case ConvPass::forward:
      adopt(forward, forward.weights_desc(), [](const auto& d) { return dnnl::convolution_forward(d); });
      break;
    case ConvPass::backward_data: {
      const auto desc = onednn::backward_data_desc(args, forward);
      adopt(desc, desc.weights_desc(), [](const auto& d) { return dnnl::convolution_backward_data(d); });
      break;
    }
    case ConvPass::backward_weights: {
      const auto desc = onednn::backward_weights_desc(args, forward);
      adopt(desc, desc.diff_weights_desc(), [](const auto& d) { return dnnl::convolution_backward_weights(d); });
      break;
    }
  }
  if (result->weights != result->plain_weights) {
    const bool back = key.pass == ConvPass::backward_weights;
    result->reorder =
        dnnl::reorder(dnnl::reorder::primitive_desc(onednn::engine(), back ? result->weights : result->plain_weights,
                                                    onednn::engine(), back ? result->plain_weights : result->weights));
  }
  return result;
}

// Compiling takes milliseconds: kept for the life of the process, one entry a shape and direction.
std::shared_ptr<const Compiled> compiled(const Key& key) {
  static auto* const mutex = new std::mutex;
  static auto* const cache = new std::unordered_map<Key, std::shared_ptr<const Compiled>, KeyHash>;
  const std::scoped_lock lock(*mutex);
  auto& entry = (*cache)[key];
  if (!entry) entry = compile(key);
  return entry;
}

memory wrap(const memory::desc& desc, const void* data) {
  return memory(desc, onednn::engine(), const_cast<void*>(data));
}

const char* name_of(ConvPass pass) {
  switch (pass) {
    case ConvPass::forward:
      return "conv2d";
    case ConvPass::backward_data:
      return "conv2d_backward_data";
    case ConvPass::backward_weights:
      return "conv2d_backward_weights";
  }
  return "?";
}

void run(const ConvGeometry& g, ConvPass pass, const float* x, const float* w, const float* bias, Activation act,
         const float* y, MemoryPool& pool) {
  onednn::checked(name_of(pass), [&] {
    const auto conv = compiled({g, pass, bias != nullptr, act});
    dnnl::stream& stream = onednn::stream();
    const bool reordered = static_cast<bool>(conv->reorder);
    const Workspace scratchpad(pool, conv->scratchpad.get_size());
    const Workspace blocked(pool, reordered ? conv->weights.get_size() : 0);
    memory plain_weights = wrap(conv->plain_weights, w);
    memory weights = reordered ? wrap(conv->weights, blocked.as<void>()) : plain_weights;
    const memory source = wrap(conv->source, x), destination = wrap(conv->destination, y);
    const memory scratch = wrap(conv->scratchpad, scratchpad.as<void>());
    switch (pass) {
      case ConvPass::forward: {
        if (reordered) conv->reorder.execute(stream, plain_weights, weights);
        std::unordered_map<int, memory> args = {{DNNL_ARG_SRC, source},
                                                {DNNL_ARG_WEIGHTS, weights},
                                                {DNNL_ARG_DST, destination},
                                                {DNNL_ARG_SCRATCHPAD, scratch}};
        if (bias != nullptr) args.emplace(DNNL_ARG_BIAS, wrap(conv->bias, bias));
        conv->primitive.execute(stream, args);
        break;
      }
      case ConvPass::backward_data:
        if (reordered) conv->reorder.execute(stream, plain_weights, weights);
        conv->primitive.execute(stream, {{DNNL_ARG_DIFF_DST, destination},
                                         {DNNL_ARG_WEIGHTS, weights},
                                         {DNNL_ARG_DIFF_SRC, source},
                                         {DNNL_ARG_SCRATCHPAD, scratch}});
        break;
      case ConvPass::backward_weights:
        conv->primitive.execute(stream, {{DNNL_ARG_SRC, source},
                                         {DNNL_ARG_DIFF_DST, destination},
                                         {DNNL_ARG_DIFF_WEIGHTS, weights},
                                         {DNNL_ARG_SCRATCHPAD, scratch}});
        if (reordered) conv->reorder.execute(stream, weights, plain_weights);
        break;
    }
    stream.wait();
  });
}

// y = act(y + residual)
void add_residual(const float* residual, Activation act, float* y, std::int64_t n) {
  cpu::dispatch_activation(act, [&](auto kind) {
    cpu::parallel_elements(n, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) y[i] = cpu::activate<decltype(kind)::value>(y[i] + residual[i]);
    });
  });
}

}  // namespace

// The residual takes a pass of its own. For a binary post-op oneDNN 2.6 leaves its best kernels, and a sum post-op
// wants the residual copied into y first: for the last convolutions of bottlenecks the former took 0.9 to 1.25 times as
// long as this, the latter 0.93 to 1.1 times; image by image, with y still in the cache, 1.0 times (AVX-512, one
// thread).
void onednn_forward(const ConvGeometry& g, const float* x, const float* w, const Epilogue<float>& epilogue, float* y,
                    MemoryPool& pool) {
  const bool fused = epilogue.residual == nullptr;
  run(g, ConvPass::forward, x, w, epilogue.bias, fused ? epilogue.act : Activation::identity, y, pool);
  if (!fused) add_residual(epilogue.residual, epilogue.act, y, g.n * g.oh * g.ow * g.o);
}

void onednn_backward_data(const ConvGeometry& g, const float* dy, const float* w, float* dx, MemoryPool& pool) {
  run(g, ConvPass::backward_data, dx, w, nullptr, Activation::identity, dy, pool);
}

void onednn_backward_weights(const ConvGeometry& g, const float* x, const float* dy, float* dw, MemoryPool& pool) {
  run(g, ConvPass::backward_weights, x, dw, nullptr, Activation::identity, dy, pool);
}

}  // namespace retort::kernels
