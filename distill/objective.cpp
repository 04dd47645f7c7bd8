#include "distill/objective.h"

namespace retort {

LossTerms CrossEntropyObjective::evaluate(const BatchBuffers& batch, const ForwardMode& mode) {
  LossTerms terms;
  terms.logits = model_.forward(batch.input, mode).logits;
  terms.total = cross_entropy(terms.logits, batch.labels, smoothing_);
  terms.values = {terms.total};
  return terms;
}

}  // namespace retort
