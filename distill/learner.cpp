#include "distill/learner.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "data/loader.h"
#include "distill/copy_weights.h"
#include "engine/suggest.h"

namespace retort {
namespace {

// N of "teacher:N", 1 of "teacher", 0 of anything else.
std::size_t teacher_number(const std::string& init, std::size_t count) {
  if (init != "teacher" && !init.starts_with("teacher:")) return 0;
  check(count > 0, "there is no teacher to copy from");
  std::size_t number = 1;
  if (init != "teacher") {
    const char* const end = init.data() + init.size();
    const auto parsed = std::from_chars(init.data() + 8, end, number);
    const bool valid = parsed.ec == std::errc() && parsed.ptr == end && number >= 1 && number <= count;
    check(valid, "expected teacher:1 to teacher:{}", count);
  }
  return number;
}

void freeze(Model& model, const std::vector<std::string>& prefixes) {
  for (const std::string& prefix : prefixes) {
    bool any = false;
    model.parameters().freeze([&](const Parameter& p) {
      const bool matches = p.name.starts_with(prefix);
      any = any || matches;
      return matches;
    });
    check(any, "no parameter of {} begins with {}", model.spec().arch, in_quotes(prefix));
  }
  const auto& all = model.parameters().parameters();
  check(std::any_of(all.begin(), all.end(), [](const auto& p) { return !p->frozen; }), "leaves nothing of {} to train",
        model.spec().arch);
}

}  // namespace

std::int64_t steps_per_epoch(const TrainConfig& config, const Session& session) {
  return static_cast<std::int64_t>(batches_of(session.train, config.data.batch_size).size());
}

std::int64_t total_steps(const TrainConfig& config, const Session& session) {
  const std::int64_t by_epochs = config.train.epochs * steps_per_epoch(config, session);
  return config.train.max_steps > 0 ? std::min(config.train.max_steps, by_epochs) : by_epochs;
}

std::string initialize_network(Model& model, const TrainConfig& config, const std::vector<std::string>& teacher_files) {
  const ModelConfig& c = config.model;
  std::string report;
  const std::size_t teacher =
      config.origin.about("model.init", [&] { return teacher_number(c.init, teacher_files.size()); });
  if (teacher > 0) {
    const char* const key = c.drop_blocks.empty() ? "model.init" : "model.drop_blocks";
    report = config.origin.about(key, [&] { return copy_weights(model, teacher_files[teacher - 1], c.drop_blocks); });
  } else if (!c.init.empty()) {
    config.origin.about("model.init", [&] { load_weights(model, c.init, c.init_skip); });
    report = "weights from " + c.init;
  }
  config.origin.about("model.freeze", [&] { freeze(model, c.freeze); });
  return report;
}

Learner::Learner(std::string name_, std::string group_, TrainConfig config_, std::unique_ptr<Model> model_,
                 std::unique_ptr<Objective> objective_, const Session& session)
    : name(std::move(name_)),
      group(std::move(group_)),
      config(std::move(config_)),
      model(std::move(model_)),
      objective(std::move(objective_)),
      optimizer(std::make_unique<Optimizer>(model->parameters(), optimizer_options(config))),
      schedule(schedule_options(config), steps_per_epoch(config, session), total_steps(config, session)) {
  ParameterStore* const parts = objective->parts();
  if (parts != nullptr && !parts->parameters().empty()) {
    parts_optimizer = std::make_unique<Optimizer>(*parts, optimizer_options(config));
  }
}

std::vector<Optimizer*> Learner::optimizers() const {
  std::vector<Optimizer*> all{optimizer.get()};
  if (parts_optimizer) all.push_back(parts_optimizer.get());
  return all;
}

void Learner::open_folder(const RunDirectory& run) {
  folder = name.empty() ? run.path().string() : (run.path() / name).string();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, "{}: cannot be made: {}", folder, error.message());
  log = std::make_unique<MetricsLog>(file("metrics.jsonl"));
}

}  // namespace retort
