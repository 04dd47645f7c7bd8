// A classifier's graph as a file has it, and what a teacher needs of it: the part that makes the logits.
#pragma once

#include <string>

#include "engine/onnx_file.h"
#include "engine/parameters.h"

namespace retort::onnx {

struct Head {
  std::string logits;  // a name of the graph
  std::string note;    // what a user should know of how they were found, or ""
};

// Cuts the graph down to its logits: nodes, initializers and inputs that they do not need are gone, and so are the
// outputs but that one. Of several outputs the first of floating numbers is meant.
//
// Where a Softmax, LogSoftmax or Sigmoid stands behind the last operator that computes something - with nothing but
// Identity, Cast, Dropout, Reshape, Flatten, Squeeze, Unsqueeze and Transpose around it, and a Log, Exp or Clip of its
// result - it is left out of the graph, and the logits are what it would have been given.
Head cut_to_logits(OnnxGraph& graph);

// Names and counts the file's weights, wherever they lie: initializers, and Constant nodes, that operators other than
// shapes and the like make use of. To be called before constants are folded: what a file standardises or multiplies is
// counted as the file has it. Throws Error for one that is not finite.
void register_weights(const OnnxGraph& graph, ParameterStore& store);

// After folding: that what the last operators on weights have made of them is finite.
void check_folded(const OnnxGraph& graph);

}  // namespace retort::onnx
