#include "distill/copy_weights.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "engine/safetensors.h"
#include "engine/suggest.h"

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

}  // namespace

std::string copy_weights(Model& student, const std::string& path, const std::vector<std::string>& drop_blocks) {
  WeightFile teacher = read_weight_file(path);
  // From the back, so that a block's number still means what the config says when its turn comes.
  std::vector<std::string> blocks = drop_blocks;
  std::sort(blocks.begin(), blocks.end(), [](const std::string& a, const std::string& b) {
    const auto x = parse_block(a), y = parse_block(b);
    return x && y ? x->number > y->number : b < a;
  });
  for (const std::string& block : blocks) drop(teacher, block);

  WeightFile fitting;
  fitting.path = path;
  std::size_t copied = 0;
  const std::vector<NamedArray> own = student.parameters().to_arrays();
  for (const NamedArray& array : own) {
    const NamedArray* const found = teacher.find(array.name);
    const bool fits = found != nullptr && found->shape == array.shape;
    fitting.arrays.push_back(fits ? *found : array);
    copied += fits ? 1 : 0;
  }
  check(copied > 0, "{}: nothing in it fits the student, {}", path, student.spec().arch);
  student.parameters().load(fitting);
  return fmt::format("{} of the student's {} arrays copied from {}", copied, own.size(), path);
}

}  // namespace retort
