// What oneDNN 2.x and 3.x spell differently, and the process-wide objects: everything else may use dnnl.hpp as it is.
#pragma once

#include <dnnl.hpp>
#include <string>

#include "kernels/error.h"
#include "kernels/kernels.h"

namespace retort::kernels::onednn {

std::string version();  // of the library that is loaded: "2.6.3"

const dnnl::engine& engine();
dnnl::stream& stream();  // one per calling thread

struct ConvolutionArgs {
  dnnl::algorithm algorithm = dnnl::algorithm::convolution_direct;
  dnnl::memory::desc source;
  dnnl::memory::desc weights;
  dnnl::memory::desc bias;  // the zero descriptor: no bias
  dnnl::memory::desc destination;
  dnnl::memory::dims strides;
  dnnl::memory::dims dilation;                              // taps left out between two: 0 is none
  dnnl::memory::dims padding;                               // before, per axis
  dnnl::memory::dims padding_after;                         // behind, per axis
  kernels::Activation act = kernels::Activation::identity;  // of the forward pass
};

// All with a scratchpad that the caller provides. `forward` is the hint that oneDNN asks for.
dnnl::convolution_forward::primitive_desc forward_desc(const ConvolutionArgs& args);
dnnl::convolution_backward_data::primitive_desc backward_data_desc(
    const ConvolutionArgs& args, const dnnl::convolution_forward::primitive_desc& forward);
dnnl::convolution_backward_weights::primitive_desc backward_weights_desc(
    const ConvolutionArgs& args, const dnnl::convolution_forward::primitive_desc& forward);

// Runs `work` and turns a failing oneDNN call into an Error that begins with `what`.
template <typename Work>
auto checked(const char* what, Work&& work) {
  try {
    return work();
  } catch (const dnnl::error& error) {
    fail("{}: oneDNN {}: {} (status {})", what, version(), error.what(), static_cast<int>(error.status));
  }
}

}  // namespace retort::kernels::onednn
