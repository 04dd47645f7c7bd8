#include "distill/foreign_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "engine/suggest.h"
#include "models/model.h"

namespace retort {
namespace {

bool is_architecture(const std::string& word) {
  const std::vector<std::string> known = architecture_names();
  return std::find(known.begin(), known.end(), word) != known.end();
}

void pass_over(WeightFile& file, const std::string& key, const std::function<bool(const std::string&)>& counts) {
  const auto word = file.metadata.find(key);
  if (file.ours || word == file.metadata.end() || counts(word->second)) return;
  file.note += fmt::format("{}its {} {} does not count", file.note.empty() ? "" : "; ", key, in_quotes(word->second));
  file.metadata.erase(word);
}

}  // namespace

void pass_over_foreign_words(WeightFile& file, const std::string& arch, const std::string& stem,
                             const std::string& shortcut) {
  const auto agrees = [](const std::string& given, const std::string& word) { return given.empty() || given == word; };
  pass_over(file, "arch", [&](const std::string& word) { return is_architecture(word) && agrees(arch, word); });
  pass_over(file, "stem",
            [&](const std::string& word) { return (word == "cifar" || word == "imagenet") && agrees(stem, word); });
  pass_over(file, "shortcut",
            [&](const std::string& word) { return (word == "projection" || word == "pad") && agrees(shortcut, word); });
}

void pass_over_foreign_classes(WeightFile& file, std::int64_t classes) {
  pass_over(file, "classes", [&](const std::string& word) { return word == std::to_string(classes); });
}

}  // namespace retort
