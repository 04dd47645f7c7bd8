#include "engine/array_match.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "engine/suggest.h"
#include "engine/weight_names.h"
#include "kernels/error.h"

namespace retort {
namespace {

constexpr std::size_t kShown = 3;  // names of a list

// A name of a file as it is, unless it could disturb a line of text.
std::string plain(const std::string& name) {
  const bool harmless = std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
  return harmless && name.size() < 80 ? name : in_quotes(name);
}

std::string shown(const std::vector<std::string>& names) {
  std::vector<std::string> first;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) first.push_back(plain(names[i]));
  return fmt::format("{}{}", fmt::join(first, ", "), names.size() > kShown ? ", ..." : "");
}

bool begins_with_any(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& p) { return name.starts_with(p); });
}

// "fc.weight" of a file, or what it is called there: "linear.weight", read as "fc.weight",.
std::string called_as(const NamedArray& array, const std::string& name) {
  return array.name == name ? in_quotes(name) : fmt::format("{}, read as {},", in_quotes(array.name), in_quotes(name));
}

class Matching {
 public:
  Matching(const WeightFile& file, const std::vector<WantedArray>& wanted, const std::vector<std::string>& skip)
      : file_(file), wanted_(wanted), skip_(skip), candidates_(wanted.size()) {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      place_.emplace(wanted[i].name, i);
      alike_.insert(without_numbers(wanted[i].name));
      first_words_.insert(without_numbers(wanted[i].name.substr(0, wanted[i].name.find('.'))));
    }
  }

  ArrayMatch run() {
    for (const NamedArray& array : file_.arrays) {
      const std::string name = ours(array.name);
      if (name.empty()) {
        classify(array.name);
      } else {
        candidates_[place_.at(name)].push_back(&array);
      }
    }
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      if (!begins_with_any(wanted_[i].name, skip_)) choose(wanted_[i], candidates_[i]);
    }
    for (const UnreadArray& unread : file_.unread) see(unread);
    if (!match_.missing.empty()) {  // then what is missing may be any of them, by a name that is not known here
      match_.unexpected.insert(match_.unexpected.end(), match_.passed_over.begin(), match_.passed_over.end());
      match_.passed_over.clear();
    }
    std::sort(match_.unexpected.begin(), match_.unexpected.end());
    match_.note = note();
    return std::move(match_);
  }

 private:
  std::string ours(const std::string& name) const {
    return our_name(name, [&](const std::string& n) { return place_.contains(n); });
  }

  // An array that is none of those wanted.
  void classify(const std::string& name) {
    if (begins_with_any(name, skip_)) return;
    const bool similar =
        !our_name(name, [&](const std::string& n) { return alike_.contains(without_numbers(n)); }).empty();
    const bool inside =
        begins_like_ours(name, [&](const std::string& word) { return first_words_.contains(without_numbers(word)); });
    const bool counts = file_.ours || (!is_bookkeeping(name) && (similar || inside));
    (counts ? match_.unexpected : match_.passed_over).push_back(name);
  }

  void choose(const WantedArray& wanted, const std::vector<const NamedArray*>& candidates) {
    const NamedArray* chosen = nullptr;
    for (const NamedArray* const candidate : candidates) {
      if (candidate->shape != wanted.shape) continue;
      check(chosen == nullptr, "{}: {} and {} are both {}", file_.path, in_quotes(chosen ? chosen->name : ""),
            in_quotes(candidate->name), wanted.name);
      chosen = candidate;
    }
    if (is_bookkeeping(wanted.name)) {
      if (chosen == nullptr && !candidates.empty()) chosen = candidates[0];
      if (chosen != nullptr) match_.found.emplace(wanted.name, chosen);
      return;
    }
    if (candidates.empty()) return match_.missing.push_back(wanted.name);
    check(chosen != nullptr, "{}: {} has shape {}, expected {}", file_.path, called_as(*candidates[0], wanted.name),
          shape_text(candidates[0]->shape), shape_text(wanted.shape));
    match_.found.emplace(wanted.name, chosen);
    for (const NamedArray* const other : candidates) {
      if (other != chosen) match_.unexpected.push_back(other->name);
    }
  }

  void see(const UnreadArray& unread) {
    const std::string name = ours(unread.name);
    const bool needed = std::find(match_.missing.begin(), match_.missing.end(), name) != match_.missing.end();
    check(name.empty() || !needed, "{}: {} is {}, expected F32, F16, BF16 or F64", file_.path, in_quotes(unread.name),
          unread.what);
    if (name.empty()) classify(unread.name);
  }

  std::string note() const {
    std::string text = file_.note;
    const auto add = [&](const std::string& words) { text += (text.empty() ? "" : "; ") + words; };
    const auto& over = match_.passed_over;
    const bool halves = std::any_of(match_.found.begin(), match_.found.end(),
                                    [](const auto& found) { return of_student(found.second->name); }) &&
                        std::any_of(over.begin(), over.end(), of_teacher);
    if (halves) add("of its two halves, a student and a teacher, the student's is taken");
    if (over.size() == 1)
      add(fmt::format("an entry that the network has no use for is passed over: {}", plain(over[0])));
    if (over.size() > 1) {
      add(fmt::format("{} entries that the network has no use for are passed over: {}", over.size(), shown(over)));
    }
    return text;
  }

  const WeightFile& file_;
  const std::vector<WantedArray>& wanted_;
  const std::vector<std::string>& skip_;
  std::unordered_map<std::string, std::size_t> place_;  // in wanted_
  std::set<std::string> alike_, first_words_;           // of the wanted names, without numbers
  std::vector<std::vector<const NamedArray*>> candidates_;
  ArrayMatch match_;
};

// How much two names have in common at their ends.
std::size_t likeness(const std::string& a, const std::string& b) {
  const auto front = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  const auto back = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend());
  return static_cast<std::size_t>(front.first - a.begin()) + static_cast<std::size_t>(back.first - a.rbegin());
}

// Of the arrays that are none of the network's, that of the same shape whose name is most like the wanted one, else the
// one whose name differs by little; "" where there is none.
std::string nearest_array(const WeightFile& file, const WantedArray& wanted, const std::vector<std::string>& others) {
  const NamedArray* best = nullptr;
  for (const std::string& other : others) {
    const NamedArray* const array = file.find(other);
    if (array == nullptr || array->shape != wanted.shape || likeness(wanted.name, other) == 0) continue;
    if (best == nullptr || likeness(wanted.name, other) > likeness(wanted.name, best->name)) best = array;
  }
  return best != nullptr ? best->name : nearest(wanted.name, others);
}

}  // namespace

ArrayMatch match_arrays(const WeightFile& file, const std::vector<WantedArray>& wanted,
                        const std::vector<std::string>& skip) {
  return Matching(file, wanted, skip).run();
}

std::string misfit_text(const WeightFile& file, const std::vector<WantedArray>& wanted, const ArrayMatch& match) {
  constexpr std::size_t kSearched = 2000;  // names, so that the search ends soon
  const auto clause = [](const char* what, const std::vector<std::string>& names) {
    return names.empty() ? "" : fmt::format("; {} {} ({})", names.size(), what, shown(names));
  };
  std::string text = clause("missing", match.missing) + clause("unexpected", match.unexpected);
  std::vector<std::string> others = match.unexpected;
  if (others.size() > kSearched) others.resize(kSearched);
  for (std::size_t i = 0; i < std::min(kShown, match.missing.size()); ++i) {
    const auto place =
        std::find_if(wanted.begin(), wanted.end(), [&](const WantedArray& w) { return w.name == match.missing[i]; });
    const std::string near = nearest_array(file, *place, others);
    if (!near.empty()) text += fmt::format("; nearest to {} is {}", match.missing[i], in_quotes(near));
  }
  return text;
}

}  // namespace retort
