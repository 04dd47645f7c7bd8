#include "distill/objective.h"

namespace retort {

LossTerms CrossEntropyObjective::evaluate(const StepInputs& inputs) {
  LossTerms terms;
  terms.logits = model_.forward(inputs.batch.input, inputs.mode).logits;
  terms.total = cross_entropy(terms.logits, inputs.batch.labels, smoothing_);
  terms.values = terms.weighted = {terms.total};
  return terms;
}

}  // namespace retort
