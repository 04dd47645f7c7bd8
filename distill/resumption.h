// How a run starts: as a new version, or where an earlier session left it. What may have changed since is in
// distill/resume_rules.h; everything else is refused by name with both values, before data and networks are loaded and
// before a file of the run is touched.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "distill/resume_rules.h"
#include "distill/run_directory.h"
#include "distill/session.h"
#include "distill/train_state.h"

namespace retort {

struct TrainerOptions;

struct Resumption {
  RunDirectory run;
  StateHeader saved;                  // its config also where an earlier version left it out
  std::vector<ConfigChange> changes;  // of the config since then
  std::vector<std::string> notes;     // lines for the log
};

struct RunStart {
  StateRecord record;                 // to be kept with the run's states
  std::optional<Resumption> resumed;  // none: a new version
  std::string finished;               // a line that says that there is nothing left to train, or ""
};

// `resolved`: the whole config as config.cfg keeps it. Throws Error where the run that is to go on does not exist, is at
// work, has no state, or was trained with something else.
RunStart start_run(const TrainConfig& config, const std::string& resolved, const TrainerOptions& options);

// The version's folder, once nothing can fail any more: a new one, or the one to go on with. Throws Error where the
// training images are not those that the run began with.
RunDirectory open_run(RunStart& start, const TrainConfig& config, const Session& session);

// Keeps the config of the steps done as config.N.cfg where the steps to come have another one, and in run.json which
// steps were trained with which.
void record_stretch(RunDirectory& run, const RunStart& start);

// For the first weights of a network: those of a resumed run are in its state, so that model.init is not read again.
TrainConfig initial_config(const TrainConfig& config, const RunStart& start);

}  // namespace retort
