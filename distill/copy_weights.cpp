#include "distill/copy_weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "engine/suggest.h"
#include "engine/weight_names.h"

namespace retort {
namespace {

struct BlockName {
  std::string stage;  // "layer1"
  int number = 0;
  std::string rest;  // ".conv1.weight"
};

std::optional<BlockName> parse_block(const std::string& name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string::npos) return std::nullopt;
  BlockName block{name.substr(0, dot), 0, ""};
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + dot + 1, end, block.number);
  if (parsed.ec != std::errc() || (parsed.ptr != end && *parsed.ptr != '.')) return std::nullopt;
  block.rest = std::string(parsed.ptr, end);
  return block;
}

void drop(WeightFile& file, const std::string& dropped) {
  const std::optional<BlockName> target = parse_block(dropped);
  check(target && target->rest.empty(), "{} is no block; expected a name such as \"layer1.1\"", in_quotes(dropped));
  const std::size_t before = file.arrays.size();
  std::erase_if(file.arrays, [&](const NamedArray& a) { return a.name.starts_with(dropped + "."); });
  check(file.arrays.size() < before, "{} has no block {}", file.path, in_quotes(dropped));
  for (NamedArray& array : file.arrays) {
    const std::optional<BlockName> block = parse_block(array.name);
    if (!block || block->stage != target->stage || block->number < target->number) continue;
    array.name = fmt::format("{}.{}{}", block->stage, block->number - 1, block->rest);
  }
}

// Gives the arrays the names that a network like the student would have them under.
void use_our_names(WeightFile& file, const std::vector<WantedArray>& own) {
  std::set<std::string> alike;
  for (const WantedArray& array : own) alike.insert(without_numbers(array.name));
  std::map<std::pair<std::string, std::vector<std::int64_t>>, std::string> theirs;  // by our name and shape
  for (NamedArray& array : file.arrays) {
    const std::string name =
        our_name(array.name, [&](const std::string& n) { return alike.contains(without_numbers(n)); });
    if (name.empty()) continue;
    const auto [it, fresh] = theirs.emplace(std::pair(name, array.shape), array.name);
    check(fresh || is_bookkeeping(name), "{}: {} and {} are both {}", file.path, in_quotes(it->second),
          in_quotes(array.name), name);
    array.name = name;
  }
}

}  // namespace

std::string copy_weights(Model& student, const std::string& path, const std::vector<std::string>& drop_blocks) {
  WeightFile teacher = read_weight_file(path);
  const std::vector<WantedArray> own = student.parameters().wanted();
  use_our_names(teacher, own);
  // From the back, so that a block's number still means what the config says when its turn comes.
  std::vector<std::string> blocks = drop_blocks;
  std::sort(blocks.begin(), blocks.end(), [](const std::string& a, const std::string& b) {
    const auto x = parse_block(a), y = parse_block(b);
    return x && y ? x->number > y->number : b < a;
  });
  for (const std::string& block : blocks) drop(teacher, block);

  WeightFile fitting;
  fitting.path = path;
  std::vector<std::string> left;  // as they were
  for (const WantedArray& wanted : own) {
    const auto fits = [&](const NamedArray& a) {
      return a.name == wanted.name && (a.shape == wanted.shape || is_bookkeeping(a.name));
    };
    const auto found = std::find_if(teacher.arrays.begin(), teacher.arrays.end(), fits);
    if (found != teacher.arrays.end()) {
      fitting.arrays.push_back(*found);
    } else if (!is_bookkeeping(wanted.name)) {
      left.push_back(wanted.name);
    }
  }
  check(!fitting.arrays.empty(), "{}: nothing in it fits the student, {}", path, student.spec().arch);
  LoadOptions partial;
  partial.strict = false;
  student.parameters().load(fitting, partial);
  std::string report =
      fmt::format("{} of the student's {} arrays copied from {}", fitting.arrays.size(), own.size(), path);
  if (!left.empty()) {
    const auto end = left.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(3, left.size()));
    report += fmt::format("; not {}{}", fmt::join(left.begin(), end, ", "), left.size() > 3 ? ", ..." : "");
  }
  return report + (teacher.note.empty() ? "" : "; ") + teacher.note;
}

}  // namespace retort
