#include "engine/pickle_calls.h"

#include <algorithm>

#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

using Items = std::vector<const PickleValue*>;

std::int64_t whole(const std::string& where, const PickleValue* value, const char* what) {
  const auto* const number = value->as<std::int64_t>();
  check(number != nullptr && *number >= 0, "{}: {} is no whole number", where, what);
  return *number;
}

std::vector<std::int64_t> whole_numbers(const std::string& where, const PickleValue* value, const char* what) {
  const auto* const list = value->as<PickleList>();
  check(list != nullptr, "{}: {} is no tuple", where, what);
  std::vector<std::int64_t> numbers;
  for (const PickleValue* item : list->items) numbers.push_back(whole(where, item, what));
  return numbers;
}

// An OrderedDict or a defaultdict: empty, or of a list of pairs, which is the last argument.
PickleValue dictionary(const Items& arguments) {
  PickleDict dict;
  const auto* const pairs = arguments.empty() ? nullptr : arguments.back()->as<PickleList>();
  if (pairs == nullptr) return {dict};
  for (const PickleValue* item : pairs->items) {
    const auto* const pair = item->as<PickleList>();
    if (pair != nullptr && pair->items.size() == 2) dict.items.emplace_back(pair->items[0], pair->items[1]);
  }
  return {std::move(dict)};
}

PickleValue tensor(const std::string& where, const Items& arguments) {
  check(arguments.size() >= 4, "{}: a tensor of {} arguments", where, arguments.size());
  const auto* const storage = arguments[0]->as<PickleStorage>();
  check(storage != nullptr, "{}: a tensor without a storage", where);
  return {PickleTensor{*storage, whole(where, arguments[1], "the offset"),
                       whole_numbers(where, arguments[2], "the shape"),
                       whole_numbers(where, arguments[3], "the stride")}};
}

PickleValue parameter(const std::string& where, const Items& arguments) {
  const bool any = !arguments.empty();
  if (any && arguments[0]->as<PickleObject>() != nullptr) return *arguments[0];
  check(any && arguments[0]->as<PickleTensor>() != nullptr, "{}: a parameter without a tensor", where);
  return *arguments[0];
}

PickleValue size(const std::string& where, const Items& arguments) {
  const auto* const extents = arguments.size() == 1 ? arguments[0]->as<PickleList>() : nullptr;
  check(extents != nullptr, "{}: a size that is made of no tuple", where);
  return {PickleList(*extents)};
}

// (function, type, arguments, state): a tensor with attributes, or of a class derived from Tensor.
PickleValue from_type(const std::string& where, const PickleGlobal& global, const Items& arguments) {
  const auto* const inner = arguments.size() >= 3 ? arguments[2]->as<PickleList>() : nullptr;
  const auto* const function = inner == nullptr ? nullptr : arguments[0]->as<PickleGlobal>();
  if (function == nullptr || function->name == global.name) return {PickleObject{global.name, global.at}};
  return called(where, *arguments[0], *inner);
}

}  // namespace

std::optional<std::string> storage_type(std::string_view global) {
  if (!global.starts_with("torch.") || !global.ends_with("Storage")) return std::nullopt;
  return std::string(global.substr(global.rfind('.') + 1));
}

PickleValue called(const std::string& where, const PickleValue& callee, const PickleList& arguments) {
  const auto* const global = callee.as<PickleGlobal>();
  if (global == nullptr) {
    check(callee.as<PickleObject>() != nullptr, "{}: calls what is no name", where);
    return callee;
  }
  const std::string& name = global->name;
  const Items& items = arguments.items;
  if (name == "collections.OrderedDict" || name == "collections.defaultdict") return dictionary(items);
  if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2") return tensor(where, items);
  if (name == "torch._utils._rebuild_parameter" || name == "torch._utils._rebuild_parameter_with_state") {
    return parameter(where, items);
  }
  if (name == "torch._tensor._rebuild_from_type_v2") return from_type(where, *global, items);
  if (name == "torch.Size") return size(where, items);
  return {PickleObject{name, global->at}};
}

PickleValue stored(const std::string& where, const PickleValue& id) {
  const auto* const list = id.as<PickleList>();
  const auto* const kind = list == nullptr || list->items.size() < 2 ? nullptr : list->items[0]->as<std::string>();
  check(kind != nullptr, "{}: a persistent id that is no storage", where);
  const Items& items = list->items;
  const auto* const global = items[1]->as<PickleGlobal>();
  if (*kind != "storage" && global != nullptr) return {PickleObject{global->name, global->at}};
  const auto* const key = items.size() < 5 ? nullptr : items[2]->as<std::string>();
  const auto type = global == nullptr ? std::nullopt : storage_type(global->name);
  check(*kind == "storage" && type && key != nullptr, "{}: a persistent id that is no storage", where);
  check(items.size() < 6 || items[5]->as<std::monostate>() != nullptr, "{}: a storage that is a view of another one",
        where);
  return {PickleStorage{*type, *key, whole(where, items[4], "the length of a storage")}};
}

}  // namespace retort
