// What a distillation tells at its end: teacher, baseline and students side by side.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "distill/distill_config.h"
#include "distill/trainer.h"
#include "engine/text.h"

namespace retort {

// One line of the table: a network, or the students of one group.
struct ReportRow {
  std::string name, arch;
  std::int64_t parameters = 0;
  std::vector<Metrics> last, best;  // on the test images, one a run; best may be empty
  std::optional<double> seconds;    // of training
};

// A run of the same student without a teacher: what distillation has to beat.
struct Baseline {
  std::string path;        // of the version
  std::string checkpoint;  // in it, see checkpoint_in()
  std::optional<double> seconds;
};

// `configured` names it ("none": no comparison); where that is "", the last by name and version of the finished runs
// below [output] root whose config is the student's but for name, seed and device, and that was trained without a
// teacher.
std::optional<Baseline> find_baseline(const StudentConfig& student, const std::string& configured);

struct MeanDeviation {
  double mean = 0, deviation = 0;  // the latter of the sample (n - 1), 0 for a single value
};
MeanDeviation mean_deviation(const std::vector<double>& values);

std::string report_table(const std::vector<ReportRow>& rows, std::size_t width = kWhole);  // folded to the width
std::string report_csv(const std::vector<ReportRow>& rows);
// One sentence a student row: did it beat the baseline? By more than two standard deviations of the difference counts;
// these are of the choice of test images, and where a row has several runs of their seeds too.
std::vector<std::string> verdicts(const ReportRow& baseline, const std::vector<ReportRow>& students);

// The learners' metrics.jsonl, epoch by epoch, mean and deviation over the runs of each group, as CSV.
std::string curves_csv(const std::vector<Learner>& learners);

}  // namespace retort
