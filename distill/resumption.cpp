#include "distill/resumption.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "distill/checkpoint_path.h"
#include "distill/console.h"
#include "distill/distill_config.h"
#include "distill/run_choice.h"
#include "distill/trainer.h"
#include "engine/atomic_file.h"
#include "engine/crc32.h"
#include "engine/onnx_file.h"
#include "engine/project_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using Contents = StateRecord::Contents;
using Json = nlohmann::ordered_json;

constexpr const char* kDataKey = "data.root";

std::string checksum_of(const std::string& file) {
  std::ifstream in = open_weight_file(file);
  std::vector<char> block(1 << 20);
  std::uint32_t crc = 0;
  std::uintmax_t bytes = 0;
  while (in.read(block.data(), std::ssize(block)) || in.gcount() > 0) {
    crc = crc32(crc, block.data(), static_cast<std::size_t>(in.gcount()));
    bytes += static_cast<std::uintmax_t>(in.gcount());
  }
  check(in.eof(), "{}: cannot be read", file);
  if (is_onnx_file(file)) {  // its weights may lie in other files
    for (const auto& [name, array] : read_onnx_file(file).initializers) {
      crc = crc32(crc, array->floats.data(), array->floats.size() * sizeof(float));
      crc = crc32(crc, array->integers.data(), array->integers.size() * sizeof(std::int64_t));
    }
  }
  return fmt::format("{:08x}-{}", crc, bytes);
}

// Nothing where it cannot be read: who needs it says so better.
std::optional<Contents> contents_of(const std::string& path) {
  try {
    const std::string file = resolve_checkpoint(path);
    return Contents{file, checksum_of(file)};
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool is_init(const std::string& key) {
  return key.ends_with("model.init");
}

// Of all files of weights that a config names.
std::map<std::string, Contents> contents_in(const FlatConfig& config) {
  std::map<std::string, Contents> all;
  for (const auto& [key, value] : config) {
    if (resume_rule(key) != ResumeRule::contents || key == kDataKey || !value.is_string()) continue;
    const std::string path = value.get<std::string>();
    if (path.empty() || (is_init(key) && (path == "teacher" || path.starts_with("teacher:")))) continue;
    if (const std::optional<Contents> found = contents_of(path)) all[key] = *found;
  }
  return all;
}

// As the program that reads it today understands it: keys that it did not have yet get their defaults.
FlatConfig understood(const ConfigValue& tree) {
  if (!is_distillation(tree)) return flat_config(config_value(to_table(train_config_of(tree, "run"))));
  return flat_config(parse_config_tree(distill_config_of(tree, "run").resolved, tree.where));
}

std::string text_in(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  check(in.good(), "{}: cannot be read", path);
  return text.str();
}

const Contents* find(const std::map<std::string, Contents>& contents, const std::string& key) {
  const auto found = contents.find(key);
  return found == contents.end() ? nullptr : &found->second;
}

class Comparison {
 public:
  Comparison(const TrainConfig& config, const std::string& resolved, const std::map<std::string, Contents>& contents,
             Resumption& resumed)
      : config_(config),
        contents_(contents),
        resumed_(resumed),
        after_(flat_config(parse_config_tree(resolved, "config"))) {
    const std::string state = resumed.run.file(kStateFile), record = resumed.run.file("config.cfg");
    std::string& text = resumed.saved.record.config;
    std::string where = state;
    if (text.empty()) {
      check(
          fs::exists(record),
          "{}: was written by an earlier version of Retort, and config.cfg beside it, which tells what trained it, is "
          "not there; put it back, or start anew without --resume",
          state);
      text = text_in(record);
      where = record;
      resumed.notes.push_back(
          "the state is an earlier version's: its config is taken from config.cfg, its teachers on trust");
    }
    const ConfigValue tree = parse_config_tree(text, where);
    const bool distilled = is_distillation(tree);
    check(distilled == after_.contains("distill.combine"), "{}: is a run of {}, the config is one of {}",
          resumed.run.path().string(), distilled ? "./distill" : "./train", distilled ? "./train" : "./distill");
    before_ = understood(tree);
    resumed.changes = config_changes(before_, after_);
  }

  // Throws Error that names every key that may not be another one. `newer`: what newer_versions() says.
  void judge(const std::string& program, const std::string& newer) {
    for (const ConfigChange& change : resumed_.changes) {
      const ResumeRule rule = resume_rule(change.key);
      if (rule == ResumeRule::refused) refused_.push_back(text_of(change));
      if (rule == ResumeRule::allowed) resumed_.notes.push_back(text_of(change));
      if (rule == ResumeRule::honoured) judge_length(change);
    }
    for (const FlatConfig* config : {&before_, &after_}) {
      for (const auto& [key, value] : *config) {
        const bool once = config == &before_ || !before_.contains(key);
        if (once && resume_rule(key) == ResumeRule::contents) judge_contents(key);
      }
    }
    if (refused_.empty()) return;
    constexpr std::size_t kShown = 10;  // of another config altogether a few are enough
    if (refused_.size() > kShown) {
      const std::size_t more = refused_.size() - kShown;
      refused_.resize(kShown);
      refused_.push_back(fmt::format("and {} more", more));
    }
    const std::string way_back =
        replaced_ ? "" : fmt::format("To go on as it was: {}. ", resume_command(program, resumed_.run.path()));
    fail("{}: was trained with something else: {}. {}To train with what is there now, leave out --resume{}",
         resumed_.run.file(kStateFile), fmt::join(refused_, "; "), way_back, newer.empty() ? "" : " (" + newer + ")");
  }

 private:
  const ConfigChange* change_of(const std::string& key) const {
    const auto found = std::find_if(resumed_.changes.begin(), resumed_.changes.end(),
                                    [&](const ConfigChange& change) { return change.key == key; });
    return found == resumed_.changes.end() ? nullptr : &*found;
  }

  void judge_length(const ConfigChange& change) {
    const TrainState& at = resumed_.saved.state;
    const int begun = at.epoch + (at.batch > 0 ? 1 : 0);
    const std::string text = text_of(change);
    if (config_.train.epochs < begun) return refused_.push_back(fmt::format("{}, but epoch {} has begun", text, begun));
    if (config_.train.max_steps > 0 && config_.train.max_steps < at.step) {
      return refused_.push_back(fmt::format("{}, but step {} is done", text, at.step));
    }
    if (at.stopped_early && change_of("train.early_stop_patience") == nullptr) {
      return refused_.push_back(fmt::format(
          "{}, but it stopped early, after epoch {}: to train on, change train.early_stop_patience (0: never)", text,
          at.epoch));
    }
    resumed_.notes.push_back(text +
                             (depends_on_length(after_)
                                  ? "; the schedule follows the new length from here on, the steps done had the old"
                                  : ""));
  }

  void judge_contents(const std::string& key) {
    const ConfigChange* const change = change_of(key);
    const Contents* const before = find(resumed_.saved.record.contents, key);
    const Contents* const now = find(contents_, key);
    const bool same = before != nullptr && now != nullptr && before->checksum == now->checksum;
    if (key == kDataKey) {  // what lies there is compared once it is loaded
      if (change != nullptr) resumed_.notes.push_back(text_of(*change));
    } else if (change != nullptr) {
      (same ? resumed_.notes : refused_).push_back(text_of(*change) + (same ? ", which holds the same" : ""));
    } else if (before == nullptr || same) {
      return;
    } else if (is_init(key)) {
      resumed_.notes.push_back(
          fmt::format("{}: {} is no longer what the run began with; it is not read again", key, before->file));
    } else if (now != nullptr) {
      refused_.push_back(replacement(key, *before, *now));
      replaced_ = true;
    }
  }

  static std::string replacement(const std::string& key, const Contents& before, const Contents& now) {
    if (before.file == now.file)
      return fmt::format("{}: {} is no longer the file that the run began with", key, now.file);
    const std::optional<Contents> kept = contents_of(before.file);
    const bool there = kept && kept->checksum == before.checksum;
    return fmt::format(
        "{}: {} when the run began, now {}{}", key, before.file, now.file,
        there ? fmt::format(" (to go on with the former: --set {})", shell_word(key + "=" + before.file)) : "");
  }

  const TrainConfig& config_;
  const std::map<std::string, Contents>& contents_;
  Resumption& resumed_;
  FlatConfig before_, after_;
  std::vector<std::string> refused_;
  bool replaced_ = false;  // a teacher is no longer there
};

bool says_finished(const RunDirectory& run) {
  const auto state = run.info().find("state");
  return state != run.info().end() && *state == "finished";
}

// "" where there are steps left.
std::string finished_line(const Resumption& resumed, const LoopConfig& loop, const std::string& program) {
  const TrainState& at = resumed.saved.state;
  const bool by_steps = loop.max_steps > 0 && at.step >= loop.max_steps;
  if (!says_finished(resumed.run) || !resumed.changes.empty()) return "";
  if (!at.stopped_early && !by_steps && at.epoch < loop.epochs) return "";
  const std::string longer = at.stopped_early ? "train.early_stop_patience=0"
                             : by_steps       ? fmt::format("train.max_steps={}", 2 * loop.max_steps)
                                              : fmt::format("train.epochs={}", 2 * loop.epochs);
  return fmt::format("{}: is finished, after {} steps{}; to train longer: {} --set {}", resumed.run.path().string(),
                     counted(at.step), at.stopped_early ? " and an early stop" : "",
                     resume_command(program, resumed.run.path()), longer);
}

// About the versions behind this one, which nobody can go on with; "" where there are none.
std::string newer_versions(const RunDirectory& run) {
  std::vector<std::string> newer;
  for (const int version : versions_in(run.path().parent_path())) {
    if (version > run.version()) newer.push_back(fmt::format("v{}", version));
  }
  if (newer.empty()) return "";
  return fmt::format("this is v{}, the newest version with a state; {} {} none", run.version(), fmt::join(newer, ", "),
                     newer.size() == 1 ? "has" : "have");
}

// Which images there are, and in which order: their labels tell data sets apart.
std::string checksum_of(const DeviceData& data) {
  const std::vector<std::int32_t> labels = data.labels.to_host<std::int32_t>();
  return fmt::format("{:08x}-{}", crc32(0, labels.data(), labels.size() * sizeof(std::int32_t)), labels.size());
}

}  // namespace

RunStart start_run(const TrainConfig& config, const std::string& resolved, const TrainerOptions& options) {
  RunStart start;
  start.record = {resolved, contents_in(flat_config(parse_config_tree(resolved, "config")))};
  if (!options.resume) return start;
  const fs::path folder =
      options.folder.empty()
          ? version_to_resume(fs::path(in_project(config.output_root)) / config.name, options.version)
          : options.folder;
  RunDirectory run = RunDirectory::open(folder);
  const std::string state = run.file(kStateFile);
  check(fs::exists(state),
        "{}: is not there: the version ended before its first state was saved, so there is nothing to go on with; "
        "start it anew, without --resume",
        state);
  start.resumed.emplace(Resumption{std::move(run), read_state_header(state, config.data.batch_size), {}, {}});
  Resumption& resumed = *start.resumed;
  const std::string newer = options.version ? "" : newer_versions(resumed.run);
  if (!newer.empty()) resumed.notes.push_back(newer);
  Comparison(config, resolved, start.record.contents, resumed).judge(options.program, newer);
  // What the run began with stays on record where a file is not read again.
  for (const auto& [key, before] : resumed.saved.record.contents) {
    const Contents* const now = find(start.record.contents, key);
    if (now == nullptr || now->checksum != before.checksum) start.record.contents[key] = before;
  }
  start.finished = finished_line(resumed, config.train, options.program);
  return start;
}

RunDirectory open_run(RunStart& start, const TrainConfig& config, const Session& session) {
  const Contents now{config.data.root, checksum_of(session.train_data)};
  const Contents recorded = std::exchange(start.record.contents[kDataKey], now);
  if (!start.resumed) return RunDirectory::create(in_project(config.output_root), config.name);
  Resumption& resumed = *start.resumed;
  check(recorded.checksum.empty() || recorded.checksum == now.checksum,
        "{}: the training images of {} are not those that the run began with", resumed.run.file(kStateFile),
        config.data.dataset);
  const std::string device = session.device.to_string();
  const auto earlier = resumed.run.info().find("device");
  if (earlier != resumed.run.info().end() && earlier->is_string() && *earlier != device) {
    resumed.notes.push_back(
        fmt::format("{}, so far on {}: the last bits will not be the same", device, earlier->get<std::string>()));
  }
  return std::move(resumed.run);
}

void record_stretch(RunDirectory& run, const RunStart& start) {
  const Json whole = {{"config", "config.cfg"}, {"first_step", 1}};
  Json stretches = Json::array();
  if (start.resumed) {
    const std::int64_t step = start.resumed->saved.state.step;
    // A stretch that ended before a state was saved has left nothing behind.
    for (const Json& stretch : run.info().value("stretches", Json::array({whole}))) {
      if (stretch.is_object() && stretch.value("first_step", std::int64_t{1}) <= step) stretches.push_back(stretch);
    }
    const std::string earlier = fmt::format("config.{}.cfg", stretches.size());
    if (!stretches.empty() && start.resumed->changes.empty()) {
      if (stretches.back()["config"] == earlier) fs::remove(run.file(earlier));
      stretches.back() = {{"config", "config.cfg"}, {"first_step", stretches.back()["first_step"]}};
    } else if (!stretches.empty()) {
      write_file_atomically(run.file(earlier), start.resumed->saved.record.config);
      stretches.back()["config"] = earlier;
      stretches.back()["last_step"] = step;
      stretches.push_back({{"config", "config.cfg"}, {"first_step", step + 1}});
    }
  }
  if (stretches.empty()) stretches.push_back(whole);
  run.update({{"stretches", stretches}});
}

TrainConfig initial_config(const TrainConfig& config, const RunStart& start) {
  TrainConfig initial = config;
  if (start.resumed) initial.model.init.clear();
  return initial;
}

}  // namespace retort
