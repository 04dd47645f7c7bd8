#include "distill/distill.h"

#include <algorithm>
#include <cmath>

#include "distill/batch_of_one.h"
#include "distill/distill_objective.h"
#include "distill/memory_need.h"
#include "distill/report.h"
#include "distill/resumption.h"
#include "engine/atomic_file.h"

namespace retort {
namespace {

// On the validation images, or where there are none on the test images. What the outputs turn out to be counts from
// here on.
Metrics measure_teacher(Teacher& teacher, const Session& session, const std::function<bool()>& stop_requested) {
  const bool validates = !session.validation.empty();
  EvaluateOptions options = session.evaluate_options();
  options.stop_requested = stop_requested;
  const LogitsOf network = [&](const Tensor& input) { return teacher.forward(input, {}).logits; };
  std::vector<float> outputs;
  const auto measure = [&] {
    outputs.clear();
    return validates ? evaluate(network, session.train_data, session.validation, options, &outputs)
                     : evaluate(network, session.test_data, session.test, options, &outputs);
  };
  const Metrics metrics = measure();
  check(all_finite(metrics), "{}: the teacher's logits for the {} images hold NaN or infinity: it is of no use",
        teacher.file(), validates ? "validation" : "test");
  const DType coarser = teacher.dtype() == DType::bf16 ? DType::bf16 : session.arithmetic.dtype;
  const OutputKind kind = output_kind(outputs, session.classes, coarser);
  teacher.set_output_kind(kind);
  return kind == OutputKind::probabilities ? measure() : metrics;
}

// What a teacher should reach, and by how much it may fall short of that.
struct Expectation {
  double top1 = 0, tolerance = 0;
  std::string words;
};

// The accuracy that its checkpoint records; where that says nothing, clearly more than chance.
Expectation expectation_of(const Teacher& teacher, const DistillConfig& config, std::int64_t classes) {
  if (const std::optional<double> recorded = teacher.recorded_top1()) {
    return {*recorded, config.teacher_tolerance.value_or(kTeacherTolerance),
            fmt::format("its checkpoint records {:.2f} %", 100 * *recorded)};
  }
  const double chance = 1.0 / static_cast<double>(classes), clearly = std::min(2 * chance, (1 + chance) / 2);
  return {clearly, config.teacher_tolerance.value_or(0),
          fmt::format("chance alone would be right on {:.2f} %, a teacher should be on {:.2f} %", 100 * chance,
                      100 * clearly)};
}

// Each teacher on what its accuracy can be told from.
void check_teachers(const DistillConfig& config, Teachers& teachers, const Session& session, Console& console,
                    const std::function<bool()>& stop_requested) {
  const bool validates = !session.validation.empty();
  for (std::size_t k = 0; k < teachers.all().size(); ++k) {
    Teacher& teacher = teachers.all()[k];
    const Metrics m = measure_teacher(teacher, session, stop_requested);
    console.print("teacher {}: {}, {} parameters, {}: {} loss {} top-1 {:.2f} % top-5 {:.2f} %{}{}", k + 1,
                  teacher.spec().arch, counted(teacher.parameter_count()), teacher.file(),
                  validates ? "validation" : "test", loss_text(m.loss), 100 * m.top1, 100 * m.top5,
                  teacher.note().empty() ? "" : "; ", teacher.note());
    const std::string& dataset = teacher.recorded_dataset();
    const Expectation expected = expectation_of(teacher, config, session.classes);
    if (m.top1 >= expected.top1 - expected.tolerance) continue;
    const std::string cause =
        !dataset.empty() && dataset != config.run.data.dataset
            ? fmt::format("it was trained on {}, this is {}", dataset, config.run.data.dataset)
            : "most likely the images are normalised in another way than it was trained with ([data] normalize), the "
              "classes are in another order, or its shortcut or stem is another one";
    fail(
        "{}: the teacher is right on {:.2f} % of the {} images, {}: {}. To go on all the same, set [distill] "
        "teacher_tolerance = {:.2f} or more",
        teacher.file(), 100 * m.top1, validates ? "validation" : "test", expected.words, cause,
        std::ceil(100 * (expected.top1 - m.top1)) / 100);
  }
}

std::vector<Learner> make_learners(const DistillConfig& config, Teachers& teachers, const Session& session,
                                   const RunStart& start, std::vector<std::string>& reports) {
  std::vector<std::string> teacher_files;
  for (const Teacher& teacher : teachers.all()) teacher_files.push_back(teacher.file());
  std::vector<Learner> learners;
  for (const StudentConfig& student : config.students) {
    std::unique_ptr<Model> model = make_network(student.train, session);
    const std::string report = initialize_network(*model, initial_config(student.train, start), teacher_files);
    if (!report.empty()) reports.push_back(student.name.empty() ? report : student.name + ": " + report);
    auto objective = std::make_unique<DistillObjective>(*model, student, teachers, config, session);
    for (const std::string& note : objective->notes()) {  // students may share a loss
      if (std::find(reports.begin(), reports.end(), note) == reports.end()) reports.push_back(note);
    }
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

    std::string verdict;
    if (baseline && !students.empty()) {
      for (const std::string& line : verdicts(*baseline, students)) verdict += "\n" + printable(line);
    } else if (!baseline && config_.baseline != "none") {
      verdict =
          "\nno baseline: train the same student without a teacher (./train, or a [[student]] with nothing but "
          "cross_entropy), or name one with [distill] baseline, to see whether distillation helped";
    }
    const auto text = [&](std::size_t width) {
      const std::string table = report_table(rows_, width);
      return table.substr(0, table.size() - 1) + folded(verdict, width, 2);
    };
    console.line("");
    console.laid_out(text);
    write_file_atomically(run.file("results.txt"), text(kWhole) + "\n");
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
    const std::unique_ptr<Model> model = make_network(student.train, session_, NetworkUse::evaluation);
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
  RunStart start = start_run(config.run, config.resolved, options);
  if (!start.finished.empty()) return finished_summary(start);
  const RunStream stream(resolve_device(config.run));
  const Session session = make_session(config.run);
  std::vector<const TrainConfig*> students;
  for (const StudentConfig& student : config.students) students.push_back(&student.train);
  check_memory(students, session);
  Teachers teachers(config.teachers, config.combine, config.run, session);
  std::vector<std::string> reports;
  std::vector<Learner> learners = make_learners(config, teachers, session, start, reports);
  Console setup;
  try {
    check_teachers(config, teachers, session, setup, options.stop_requested);
  } catch (const Interrupted&) {
    return {};
  }
  check_batch_of_one(config.run, session, learners, &teachers);
  RunDirectory run = open_run(start, config.run, session);
  Console console(run.file("log.txt"));
  for (const std::string& line : reports) console.line(line);
  const auto report = [&](const TrainSummary& summary) {
    if (!config.run.train.evaluate_test) return;
    Report(config, teachers, session, summary, options.stop_requested).print(learners, run, console);
  };
  return run_training(
      {config.run, config.resolved, session, learners, start, &teachers, config.gradient_norms_every, report}, run,
      console, options);
}

}  // namespace retort
