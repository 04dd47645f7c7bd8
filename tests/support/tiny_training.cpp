#include "tests/support/tiny_training.h"

#include <algorithm>
#include <numeric>

#include "data/random_stream.h"
#include "distill/distill_objective.h"
#include "distill/resumption.h"
#include "engine/safetensors.h"
#include "tests/support/files.h"

namespace retort::test {
namespace {

constexpr std::int64_t kClasses = 7;
constexpr int kSize = 8;

void write_teacher(const std::string& path, std::uint64_t seed) {
  const auto model = make_model({.arch = "resnet8", .classes = kClasses});
  model->parameters().materialize({}, DType::f32, seed);
  write_safetensors(path, model->parameters().to_arrays(),
                    {{"arch", "resnet8"}, {"classes", std::to_string(kClasses)}, {"stem", "cifar"}});
}

}  // namespace

Session tiny_session(std::int64_t images, std::int64_t validation, Device device) {
  RandomStream random(3, kPurposeSynthetic, 0, 0);
  ImageSet set;
  set.count = images;
  set.height = set.width = kSize;
  set.images.resize(static_cast<std::size_t>(images) * kSize * kSize * 3);
  for (auto& value : set.images) value = static_cast<std::uint8_t>(random.word() >> 24);
  for (std::int64_t i = 0; i < images; ++i) set.labels.push_back(static_cast<std::int32_t>(random.below(kClasses)));
  Session session;
  session.device = device;
  session.train_data = session.test_data = DeviceData::upload(set, session.device);
  session.test.resize(static_cast<std::size_t>(images));
  std::iota(session.test.begin(), session.test.end(), 0);
  session.train.assign(session.test.begin(), session.test.end() - validation);
  session.validation.assign(session.test.end() - validation, session.test.end());
  session.height = session.width = kSize;
  session.classes = kClasses;
  for (auto* const params : {&session.augment, &session.preprocessing}) {
    std::fill_n(params->mean, 3, 0.5);
    std::fill_n(params->std, 3, 0.25);
  }
  return session;
}

TinyTraining::TinyTraining(const std::string& folder, const std::string& config, Device device,
                           const std::string& precision)
    : session(tiny_session(29, 12, device)),
      folder_(folder),
      text_("name = \"tiny\"\nprecision = \"" + precision +
            "\"\n[data]\nbatch_size = 6\nnormalize = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }\n" +
            (config.find("[model]") == std::string::npos ? "[model]\narch = \"resnet8\"\n" : "") +
            "[optimizer]\nlr = 0.05\n" + config),
      distils_(config.find("[[teacher]]") != std::string::npos) {
  session.arithmetic = arithmetic_of(precision);
  if (!distils_) return;
  std::uint64_t seed = 2;
  for (const std::string name : {"teacher", "second teacher"}) {
    const std::string path = folder_ + "/" + name + ".safetensors", quoted = "\"" + name + "\"";
    write_teacher(path, seed++);
    for (std::size_t at = 0; (at = text_.find(quoted, at)) != std::string::npos;) {
      text_.replace(at, quoted.size(), "\"" + path + "\"");
    }
  }
}

TrainSummary TinyTraining::run(const std::string& root, bool resume) {
  const std::string output = "[output]\nroot = \"" + folder_ + "/" + root + "\"\n";
  const ConfigValue tree = parse_config_tree(text_ + output, "tiny.cfg");
  DistillConfig config;
  if (distils_) {
    config = distill_config_of(tree, "tiny");
  } else {
    config.run = train_config_of(tree, "tiny");
    config.students.push_back({"", "", config.run, {}});
  }
  TrainerOptions options;
  options.resume = resume;
  options.stop_requested = stop_requested;
  const std::string resolved = distils_ ? config.resolved : to_toml(config.run);
  RunStart start = start_run(config.run, resolved, options);
  if (!start.finished.empty()) return finished_summary(start);
  std::optional<Teachers> teachers;
  if (distils_) teachers.emplace(config.teachers, config.combine, config.run, session);
  std::vector<Learner> made;
  for (const StudentConfig& student : config.students) {
    std::unique_ptr<Model> model = make_network(student.train, session);
    std::unique_ptr<Objective> goal;
    if (objective) {
      goal = objective(*model);
    } else if (distils_) {
      goal = std::make_unique<DistillObjective>(*model, student, *teachers, config, session);
    } else {
      goal = std::make_unique<CrossEntropyObjective>(*model, 0.1);
    }
    made.emplace_back(student.name, student.group, student.train, std::move(model), std::move(goal), session);
  }
  learners = &made;
  RunDirectory directory = open_run(start, config.run, session);
  Console console(directory.file("log.txt"));
  return run_training(
      {config.run, resolved, session, made, start, teachers ? &*teachers : nullptr, config.gradient_norms_every},
      directory, console, options);
}

std::string TinyTraining::folder(const std::string& root, const std::string& student) const {
  return folder_ + "/" + root + "/tiny/v1" + (student.empty() ? "" : "/" + student);
}

nlohmann::json TinyTraining::info(const std::string& root) const {
  return nlohmann::json::parse(read_file(folder(root) + "/run.json"));
}

}  // namespace retort::test
