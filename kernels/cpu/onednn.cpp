#include "kernels/cpu/onednn.h"

#include <fmt/format.h>

namespace retort::kernels::onednn {

std::string version() {
  const dnnl_version_t* const v = dnnl_version();
  return fmt::format("{}.{}.{}", v->major, v->minor, v->patch);
}

// Never destroyed, like the backends: cached primitives refer to it.
const dnnl::engine& engine() {
  static const auto* const instance = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *instance;
}

dnnl::stream& stream() {
  thread_local dnnl::stream instance(engine());
  return instance;
}

namespace {

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

void append_eltwise(dnnl::post_ops& ops, dnnl::algorithm algorithm, float alpha, float beta) {
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(algorithm, alpha, beta);
#else
  ops.append_eltwise(1.0f, algorithm, alpha, beta);
#endif
}

dnnl::primitive_attr forward_attributes(Activation act) {
  dnnl::primitive_attr attr = attributes();
  dnnl::post_ops ops;
  if (act == Activation::relu) append_eltwise(ops, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
  if (act == Activation::relu6) append_eltwise(ops, dnnl::algorithm::eltwise_clip, 0.0f, 6.0f);
  attr.set_post_ops(ops);
  return attr;
}

}  // namespace

#if DNNL_VERSION_MAJOR >= 3

dnnl::convolution_forward::primitive_desc forward_desc(const ConvolutionArgs& a) {
  return {engine(),        dnnl::prop_kind::forward_training,
          a.algorithm,     a.source,
          a.weights,       a.bias,
          a.destination,   a.strides,
          a.dilation,      a.padding,
          a.padding_after, forward_attributes(a.act)};
}

dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const ConvolutionArgs& a, const dnnl::convolution_forward::primitive_desc& forward) {
  return {engine(),   a.algorithm, a.source,        a.weights, a.destination, a.strides,
          a.dilation, a.padding,   a.padding_after, forward,   attributes()};
}

dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const ConvolutionArgs& a, const dnnl::convolution_forward::primitive_desc& forward) {
  return {engine(),   a.algorithm, a.source,        a.weights, a.destination, a.strides,
          a.dilation, a.padding,   a.padding_after, forward,   attributes()};
}

#else

dnnl::convolution_forward::primitive_desc forward_desc(const ConvolutionArgs& a) {
  const dnnl::convolution_forward::desc desc(dnnl::prop_kind::forward_training, a.algorithm, a.source, a.weights,
                                             a.bias, a.destination, a.strides, a.dilation, a.padding, a.padding_after);
  return {desc, forward_attributes(a.act), engine()};
}

dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const ConvolutionArgs& a, const dnnl::convolution_forward::primitive_desc& forward) {
  const dnnl::convolution_backward_data::desc desc(a.algorithm, a.source, a.weights, a.destination, a.strides,
                                                   a.dilation, a.padding, a.padding_after);
  return {desc, attributes(), engine(), forward};
}

dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const ConvolutionArgs& a, const dnnl::convolution_forward::primitive_desc& forward) {
  const dnnl::convolution_backward_weights::desc desc(a.algorithm, a.source, a.weights, a.destination, a.strides,
                                                      a.dilation, a.padding, a.padding_after);
  return {desc, attributes(), engine(), forward};
}

#endif

}  // namespace retort::kernels::onednn
