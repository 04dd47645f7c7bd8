#include "distill/run_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "distill/config_reader.h"
#include "distill/console.h"
#include "distill/flat_config.h"
#include "distill/text_table.h"
#include "engine/json_text.h"
#include "engine/project_folder.h"
#include "engine/suggest.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const nlohmann::json* students_of(const RunEntry& run) {
  const auto students = run.info.find("students");
  return students != run.info.end() && students->is_object() && !students->empty() ? &*students : nullptr;
}

ComparedRun student_of(const RunEntry& run, const std::string& student) {
  ComparedRun out{fmt::format("{}/v{}/{}", run.name, run.version, student), run, student};
  for (const auto& [key, value] : students_of(run)->at(student).items()) out.entry.info[key] = value;
  return out;
}

std::vector<ComparedRun> expanded(const RunEntry& run) {
  if (students_of(run) == nullptr) return {{fmt::format("{}/v{}", run.name, run.version), run, ""}};
  std::vector<ComparedRun> out;
  for (const auto& [student, values] : students_of(run)->items()) out.push_back(student_of(run, student));
  return out;
}

// The versions of the run in a folder, whatever lies around it.
std::vector<RunEntry> versions_of(const fs::path& folder) {
  std::vector<RunEntry> versions;
  for (RunEntry& run : list_runs(folder.parent_path().string())) {
    if (run.path.parent_path().filename() == folder.filename()) versions.push_back(std::move(run));
  }
  return versions;
}

// What `path` stands for if it is a run, a version or a student of one; else nothing.
std::vector<ComparedRun> runs_at(const fs::path& path) {
  const std::vector<RunEntry> versions = versions_of(path);
  if (!versions.empty()) return expanded(versions.back());
  for (const RunEntry& run : versions_of(path.parent_path())) {
    if (run.path.filename() == path.filename()) return expanded(run);
  }
  const std::string student = path.filename().string();
  const fs::path above = path.parent_path();
  std::vector<RunEntry> holders = versions_of(above);  // NAME/STUDENT: the newest that has it
  if (holders.empty()) {
    for (RunEntry& run : versions_of(above.parent_path())) {
      if (run.path.filename() == above.filename()) holders.push_back(std::move(run));
    }
  }
  for (auto run = holders.rbegin(); run != holders.rend(); ++run) {
    if (students_of(*run) != nullptr && students_of(*run)->contains(student)) return {student_of(*run, student)};
  }
  return {};
}

FlatConfig config_of(const ComparedRun& run) {
  const fs::path file = run.entry.path / "config.cfg";
  if (!fs::exists(file)) return {};
  ConfigValue tree = load_config_tree(file.string());
  ConfigTable& table = tree.table();
  // What a student has of its own lies over what all have.
  if (const auto students = table.find("student"); students != table.end()) {
    const ConfigArray blocks = std::get<ConfigArray>(students->second.data);
    table.erase(students);
    for (const ConfigValue& block : blocks) {
      const auto name = block.table().find("name");
      if (name == block.table().end() || plain_value(name->second) != run.student) continue;
      merge_tables(table, block.table());
    }
    table.erase("group");
  }
  table.erase("name");
  return flat_config(tree);
}

std::string text_of(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  return value.is_string() ? value.get<std::string>() : json_text(value);
}

Json fact(const ComparedRun& run, const char* key) {
  const auto found = run.entry.info.find(key);
  return found == run.entry.info.end() ? Json() : Json(*found);
}

using Text = std::function<std::string(const ComparedRun&)>;

std::vector<std::pair<const char*, Text>> table_rows() {
  const auto plain_text = [](const char* key) {
    return [key](const ComparedRun& run) { return text_of(fact(run, key)); };
  };
  const auto percent = [](const char* key) {
    return [key](const ComparedRun& run) {
      const Json value = fact(run, key);
      return value.is_number() ? fmt::format("{:.2f}", 100 * value.get<double>()) : "-";
    };
  };
  const auto loss = [](const char* key) {
    return [key](const ComparedRun& run) {
      const Json value = fact(run, key);
      return value.is_number() ? loss_text(value.get<double>()) : "-";
    };
  };
  return {
      {"state", [](const ComparedRun& run) { return state_of(run.entry); }},
      {"arch", plain_text("arch")},
      {"dataset", plain_text("dataset")},
      {"epoch",
       [](const ComparedRun& run) { return text_of(fact(run, "epoch")) + "/" + text_of(fact(run, "epochs")); }},
      {"parameters",
       [](const ComparedRun& run) {
         const Json value = fact(run, "parameters");
         return value.is_number_integer() ? counted(value.get<std::int64_t>()) : "-";
       }},
      {"best val %", percent("best_validation_top1")},
      {"test last %", percent("test_last_top1")},
      {"test best %", percent("test_best_top1")},
      {"test last loss", loss("test_last_loss")},
      {"test best loss", loss("test_best_loss")},
      {"time",
       [](const ComparedRun& run) {
         const Json value = fact(run, "seconds");
         return value.is_number() ? duration_text(value.get<double>()) : "-";
       }},
      {"started", plain_text("started")},
  };
}

}  // namespace

std::string state_of(const RunEntry& run) {
  if (run.active) return "running";
  const auto found = run.info.find("state");
  if (found == run.info.end() || !found->is_string()) return "-";
  return *found == "running" ? "died" : found->get<std::string>();
}

std::string runs_table(const std::vector<RunEntry>& runs, std::size_t width) {
  std::vector<std::pair<const char*, Text>> facts = table_rows();
  std::erase_if(facts, [](const auto& fact) { return std::string_view(fact.first).ends_with("loss"); });
  std::vector<std::vector<std::string>> rows{{"run", "version"}};
  for (const auto& [name, text] : facts) rows[0].emplace_back(name);
  for (const RunEntry& run : runs) {
    rows.push_back({run.name, fmt::format("v{}", run.version)});
    const ComparedRun whole{"", run, ""};
    for (const auto& [name, text] : facts) rows.back().push_back(text(whole));
    if (students_of(run) == nullptr) continue;
    for (const auto& [student, values] : students_of(run)->items()) {
      ComparedRun own;
      own.entry.info = values;
      rows.push_back({"  " + student, ""});
      for (const auto& [name, text] : facts) {
        const std::string_view fact = name;
        const bool its_own = fact == "arch" || fact == "parameters" || fact.ends_with("%");
        rows.back().push_back(its_own ? text(own) : "");
      }
    }
  }
  return text_table(rows, {.words = 5, .keys = 2, .width = width});
}

std::vector<ComparedRun> all_runs(const std::string& root) {
  std::vector<ComparedRun> out;
  for (const RunEntry& run : list_runs(root)) {
    for (ComparedRun& each : expanded(run)) out.push_back(std::move(each));
  }
  return out;
}

std::vector<ComparedRun> find_runs(const std::string& root, const std::string& wanted) {
  std::string text = wanted;
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  for (const fs::path& path : {fs::path(root) / text, fs::path(in_project(text))}) {
    const std::vector<ComparedRun> found = runs_at(fs::absolute(path).lexically_normal());
    if (!found.empty()) return found;
  }
  std::vector<std::string> known;
  for (const RunEntry& run : list_runs(root)) {
    if (known.empty() || known.back() != run.name) known.push_back(run.name);
  }
  for (const ComparedRun& run : all_runs(root)) known.push_back(run.name);
  fail("{}: no such run in {}{}", in_quotes(wanted), root, did_you_mean(wanted, known));
}

RunComparison compare_runs(std::vector<ComparedRun> runs) {
  RunComparison comparison;
  std::map<std::string, std::vector<Json>> values;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    FlatConfig config = config_of(runs[i]);
    for (auto& [key, value] : config) {
      auto& row = values[key];
      row.resize(runs.size());
      row[i] = std::move(value);
    }
  }
  for (auto& [key, row] : values) {
    if (std::any_of(row.begin(), row.end(), [&, &first = row[0]](const Json& v) { return v != first; })) {
      comparison.differences.emplace_back(key, std::move(row));
    }
  }
  comparison.runs = std::move(runs);
  return comparison;
}

std::string comparison_table(const RunComparison& comparison, std::size_t width) {
  std::vector<std::vector<std::string>> rows{{""}};
  for (const ComparedRun& run : comparison.runs) rows[0].push_back(run.name);
  for (const auto& [name, text] : table_rows()) {
    rows.push_back({name});
    for (const ComparedRun& run : comparison.runs) rows.back().push_back(text(run));
  }
  const std::size_t facts = rows.size();
  for (const auto& [key, values] : comparison.differences) {
    rows.push_back({key});
    for (const Json& value : values) rows.back().push_back(value == "" ? "\"\"" : text_of(value));
  }
  if (rows.size() > facts) rows.insert(rows.begin() + static_cast<std::ptrdiff_t>(facts), {{""}, {"[config]"}});
  std::string text = text_table(rows, {.words = rows[0].size(), .width = width});
  if (rows.size() == facts && comparison.runs.size() > 1) text += "\nthe configs are the same\n";
  return text;
}

std::string comparison_json(const RunComparison& comparison) {
  Json out;
  out["runs"] = Json::array();
  for (const ComparedRun& run : comparison.runs) {
    Json one = {{"name", run.name}, {"path", run.entry.path.string()}};
    for (const auto& [key, value] : run.entry.info.items()) {
      if (key != "students") one[key] = value;
    }
    one["state"] = state_of(run.entry);
    out["runs"].push_back(std::move(one));
  }
  out["config"] = Json::object();
  for (const auto& [key, values] : comparison.differences) out["config"][key] = values;
  return json_text(out, 2) + "\n";
}

std::string comparison_csv(const RunComparison& comparison) {
  constexpr const char* kFacts[] = {
      "arch",           "dataset",        "epoch",          "epochs",         "parameters", "best_validation_top1",
      "test_last_top1", "test_best_top1", "test_last_loss", "test_best_loss", "seconds",    "started"};
  std::string text = "run,state";
  for (const char* key : kFacts) text += fmt::format(",{}", key);
  for (const auto& [key, values] : comparison.differences) text += "," + csv_field("config." + key);
  text += "\n";
  const auto cell = [](const Json& value) { return value.is_null() ? "" : csv_field(text_of(value)); };
  for (std::size_t i = 0; i < comparison.runs.size(); ++i) {
    const ComparedRun& run = comparison.runs[i];
    text += csv_field(run.name) + "," + csv_field(state_of(run.entry));
    for (const char* key : kFacts) text += "," + cell(fact(run, key));
    for (const auto& [key, values] : comparison.differences) text += "," + cell(values[i]);
    text += "\n";
  }
  return text;
}

}  // namespace retort
