// Runs side by side: what came out, and where their configs differ.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "distill/run_directory.h"
#include "engine/text.h"

namespace retort {

// One version, or one student of a version that has several.
struct ComparedRun {
  std::string name;  // "baseline/v2"; "sweep/v1/kd" for a student
  RunEntry entry;    // `info` has a student's own results on top of its run's
  std::string student;
};

// "running", "finished", "interrupted"; "died" for a version that says it runs, but that nobody works on.
std::string state_of(const RunEntry& run);

// A line for each version, and for each student of a version that has several; folded where it is wider than `width`.
std::string runs_table(const std::vector<RunEntry>& runs, std::size_t width = kWhole);

// The run that is meant by NAME (its newest version), NAME/vN, NAME/STUDENT, NAME/vN/STUDENT below `root`, or by a
// folder's path. A version of several students gives all of them. Throws Error, one line with the nearest known name.
std::vector<ComparedRun> find_runs(const std::string& root, const std::string& wanted);
// All runs below `root` alike.
std::vector<ComparedRun> all_runs(const std::string& root);

struct RunComparison {
  std::vector<ComparedRun> runs;
  // Keys of the resolved configs (optimizer.lr, loss.0.weight) whose values are not the same in all of them, with the
  // value in each run, null where it has none. The name of a run does not count.
  std::vector<std::pair<std::string, std::vector<nlohmann::ordered_json>>> differences;
};

// Reads config.cfg of each; a run without one has no values.
RunComparison compare_runs(std::vector<ComparedRun> runs);

std::string comparison_table(const RunComparison& comparison, std::size_t width = kWhole);
// {"runs": [{"name", "path", and what run.json says}], "config": {key: [value in each run]}}
std::string comparison_json(const RunComparison& comparison);
// One line a run, the differing keys as columns "config.KEY".
std::string comparison_csv(const RunComparison& comparison);

}  // namespace retort
