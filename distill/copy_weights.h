// Starting a student from its teacher's weights.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"

namespace retort {

// Fills every parameter and statistic of `student` that the checkpoint `file` has in the same shape, under our name or
// another (engine/weight_names.h). `drop_blocks` are blocks of the checkpoint ("layer1.1") that are left out first; those
// after them move up. Throws Error where the checkpoint has no such block or nothing fits. Returns one line that says
// how many arrays were copied, and which were not.
std::string copy_weights(Model& student, const std::string& file, const std::vector<std::string>& drop_blocks);

}  // namespace retort
