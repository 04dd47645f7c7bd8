#include "distill/distill.h"

#include <algorithm>

#include "distill/batch_of_one.h"
#include "distill/distill_objective.h"
#include "distill/report.h"
#include "engine/atomic_file.h"

namespace retort {
namespace {

// Each teacher on the validation images, or where there are none on the test images.
void check_teachers(const DistillConfig& config, const Teachers& teachers, const Session& session, Console& console,
                    const std::function<bool()>& stop_requested) {
  const bool validates = !session.validation.empty();
  for (std::size_t k = 0; k < teachers.all().size(); ++k) {
    const Teacher& teacher = teachers.all()[k];
    const LogitsOf logits = [&](const Tensor& input) { return teacher.forward(input, {}).logits; };
    EvaluateOptions options = session.evaluate_options();
    options.stop_requested = stop_requested;
    const Metrics m = validates ? evaluate(logits, session.train_data, session.validation, options)
                                : evaluate(logits, session.test_data, session.test, options);
    check(all_finite(m), "{}: the teacher's logits for the {} images hold NaN or infinity: it is of no use",
          teacher.file(), validates ? "validation" : "test");
    console.print("teacher {}: {}, {} parameters, {}: {} loss {:.4f} top-1 {:.2f} % top-5 {:.2f} %{}{}", k + 1,
                  teacher.spec().arch, counted(teacher.parameter_count()), teacher.file(),
                  validates ? "validation" : "test", m.loss, 100 * m.top1, 100 * m.top5,
                  teacher.note().empty() ? "" : "; ", teacher.note());
    const std::string& dataset = teacher.recorded_dataset();
    const double chance = 1.0 / static_cast<double>(session.classes);
    const double expected = teacher.recorded_top1().value_or(std::min(1.0, 2 * chance));
    const double tolerance = teacher.recorded_top1() ? config.teacher_tolerance : 0;
    if (m.top1 >= expected - tolerance) continue;
    const std::string cause =
        !dataset.empty() && dataset != config.run.data.dataset
            ? fmt::format("it was trained on {}, this is {}", dataset, config.run.data.dataset)
            : "most likely the images are normalised in another way than it was trained with ([data] normalize), the "
              "classes are in another order, or its shortcut or stem is another one";
    fail(
        "{}: the teacher is right on {:.2f} % of the {} images, {} {:.2f} %: {}. To go on all the same, raise "
        "[distill] "
        "teacher_tolerance",
        teacher.file(), 100 * m.top1, validates ? "validation" : "test",
        teacher.recorded_top1() ? "its checkpoint records" : "chance would give about half of", 100 * expected, cause);
  }
}

std::vector<Learner> make_learners(const DistillConfig& config, Teachers& teachers, const Session& session,
                                   std::vector<std::string>& reports) {
  std::vector<std::string> teacher_files;
  for (const Teacher& teacher : teachers.all()) teacher_files.push_back(teacher.file());
  std::vector<Learner> learners;
  for (const StudentConfig& student : config.students) {
    std::unique_ptr<Model> model = make_network(student.train, session);
    const std::string report = initialize_network(*model, student.train, teacher_files);
    if (!report.empty()) reports.push_back(student.name.empty() ? report : student.name + ": " + report);
    auto objective = std::make_unique<DistillObjective>(*model, student, teachers, config, session);
    learners.emplace_back(student.name, student.group, student.train, std::move(model), std::move(objective), session);
  }
  return learners;
}

bool is_baseline(const StudentConfig& student) {
  return std::all_of(student.losses.begin(), student.losses.end(),
                     [](const LossConfig& loss) { return loss.type == "cross_entropy" || loss.weight == 0; });
}

class Report {
 public:
  Report(const DistillConfig& config, const Teachers& teachers, const Session& session, const TrainSummary& summary,
         const std::function<bool()>& stop_requested)
      : config_(config),
        teachers_(teachers),
        session_(session),
        summary_(summary),
        options_(session.evaluate_options()) {
    options_.teacher = &summary.teacher_logits;
    options_.stop_requested = stop_requested;
  }

  void print(const std::vector<Learner>& learners, const RunDirectory& run, Console& console) {
    for (const Teacher& teacher : teachers_.all()) rows_.push_back(teacher_row(teacher));
    std::vector<ReportRow> students = student_rows(learners);
    std::optional<ReportRow> baseline = take_baseline(students);
    if (!baseline) baseline = earlier_baseline(console);
    if (baseline) rows_.push_back(*baseline);
    rows_.insert(rows_.end(), students.begin(), students.end());

    std::string text = report_table(rows_);
    if (baseline && !students.empty()) {
      for (const std::string& line : verdicts(*baseline, students)) text += line + "\n";
    } else if (!baseline && config_.baseline != "none") {
      text +=
          "no baseline: train the same student without a teacher (./train, or a [[student]] with nothing but "
          "cross_entropy), or name one with [distill] baseline, to see whether distillation helped\n";
    }
    console.line("");
    console.line(text.substr(0, text.size() - 1));
    write_file_atomically(run.file("results.txt"), text);
    write_file_atomically(run.file("results.csv"), report_csv(rows_));
    write_file_atomically(run.file("curves.csv"), curves_csv(learners));
  }

 private:
  ReportRow teacher_row(const Teacher& teacher) const {
    LogitsOf logits = [&](const Tensor& input) { return teacher.forward(input, {}).logits; };
    EvaluateOptions options = options_;
    if (teachers_.all().size() == 1) {  // its logits are those that the students were compared with
      logits = [next = summary_.teacher_logits.begin()](const Tensor&) mutable { return *next++; };
      options.teacher = nullptr;
    }
    return {"teacher",
            teacher.spec().arch,
            teacher.parameter_count(),
            {evaluate(logits, session_.test_data, session_.test, options)},
            {},
            std::nullopt};
  }

  std::vector<ReportRow> student_rows(const std::vector<Learner>& learners) {
    std::vector<ReportRow> rows;
    for (std::size_t n = 0; n < learners.size(); ++n) {
      const Learner& learner = learners[n];
      const std::string name = learner.name.empty() ? "student" : learner.group;
      auto row = std::find_if(rows.begin(), rows.end(), [&](const ReportRow& r) { return r.name == name; });
      if (row == rows.end()) {
        rows.push_back({name, learner.config.model.arch, learner.model->parameters().parameter_count(), {}, {}, {}});
        if (learners.size() == 1) rows.back().seconds = summary_.seconds;
        row = rows.end() - 1;
        if (is_baseline(config_.students[n])) baselines_.push_back(name);
      }
      const LearnerResult& result = summary_.learners[n];
      if (result.test_last) row->last.push_back(*result.test_last);
      if (result.test_best) row->best.push_back(*result.test_best);
    }
    return rows;
  }

  // The first group of this run that learned without a teacher.
  std::optional<ReportRow> take_baseline(std::vector<ReportRow>& students) const {
    if (students.size() < 2) return std::nullopt;
    for (auto row = students.begin(); row != students.end(); ++row) {
      if (std::find(baselines_.begin(), baselines_.end(), row->name) == baselines_.end()) continue;
      ReportRow baseline = *row;
      students.erase(row);
      return baseline;
    }
    return std::nullopt;
  }

  std::optional<ReportRow> earlier_baseline(Console& console) const {
    if (config_.students.size() > 1 && config_.baseline.empty()) return std::nullopt;
    const StudentConfig& student = config_.students[0];
    const std::optional<Baseline> found = find_baseline(student, config_.baseline);
    if (!found) return std::nullopt;
    const std::unique_ptr<Model> model = make_network(student.train, session_);
    load_weights(*model, found->checkpoint);
    const Metrics m = evaluate(*model, session_.test_data, session_.test, options_);
    if (!all_finite(m)) {
      console.print("{}: no baseline: its logits hold NaN or infinity", found->checkpoint);
      return std::nullopt;
    }
    return ReportRow{"baseline " + found->path,
                     student.train.model.arch,
                     model->parameters().parameter_count(),
                     {m},
                     {m},
                     found->seconds};
  }

  const DistillConfig& config_;
  const Teachers& teachers_;
  const Session& session_;
  const TrainSummary& summary_;
  EvaluateOptions options_;
  std::vector<ReportRow> rows_;
  std::vector<std::string> baselines_;
};

}  // namespace

TrainSummary distill(const DistillConfig& config, const TrainerOptions& options) {
  const RunStream stream(resolve_device(config.run.device));
  const Session session = make_session(config.run);
  Teachers teachers(config.teachers, config.combine, config.run, session);
  std::vector<std::string> reports;
  std::vector<Learner> learners = make_learners(config, teachers, session, reports);
  Console setup;
  try {
    check_teachers(config, teachers, session, setup, options.stop_requested);
  } catch (const Interrupted&) {
    return {};
  }
  check_batch_of_one(config.run, session, learners, &teachers);
  RunDirectory run = open_run(config.run, options);
  Console console(run.file("log.txt"));
  for (const std::string& line : reports) console.line(line);
  const auto report = [&](const TrainSummary& summary) {
    if (!config.run.train.evaluate_test) return;
    Report(config, teachers, session, summary, options.stop_requested).print(learners, run, console);
  };
  return run_training({config.run, config.resolved, session, learners, &teachers, config.gradient_norms_every, report},
                      run, console, options);
}

}  // namespace retort
