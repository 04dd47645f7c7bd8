// A network that ends at 1x1 cannot normalise a batch of one image: one value a channel has no variance.
#pragma once

#include <vector>

#include "distill/learner.h"

namespace retort {

// Before anything is trained: where an epoch of `run` has a batch of one image, a pass of each learner on one, which
// leaves everything as it was. Throws Error, naming the learner and [data] batch_size, where that cannot be. `teachers`
// is null where nothing is distilled.
void check_batch_of_one(const TrainConfig& run, const Session& session, const std::vector<Learner>& learners,
                        const Teachers* teachers);

}  // namespace retort
