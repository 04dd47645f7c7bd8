// ./distill: trains students against frozen teachers and says whether it helped.
#pragma once

#include "distill/distill_config.h"
#include "distill/trainer.h"

namespace retort {

// Loads and evaluates the teachers, trains the students, and prints a table of teacher, baseline and students; it and
// the curves' data stay in the run's folder (results.txt, results.csv, curves.csv). Throws Error as train() does, and
// where a teacher is far below the accuracy that its checkpoint records.
TrainSummary distill(const DistillConfig& config, const TrainerOptions& options);

}  // namespace retort
