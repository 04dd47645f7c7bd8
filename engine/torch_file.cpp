#include "engine/torch_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "engine/file_kind.h"
#include "engine/suggest.h"
#include "engine/unpickler.h"
#include "engine/zip_file.h"
#include "kernels/error.h"

namespace retort {
namespace {

using Bytes = std::vector<std::byte>;

// The pickle of the number 0x1950a86a20f9469cfc6c, with which every file of the older format begins.
constexpr std::array<unsigned char, 15> kOldMagic = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                                     0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
constexpr std::array<unsigned char, 4> kZipMagic = {'P', 'K', 3, 4};

constexpr const char* kAdvice = "save the state dict with PyTorch: torch.save(model.state_dict(), FILE)";

struct StorageType {
  std::string_view name;
  std::size_t bytes;             // of an element in the file
  std::optional<FileType> type;  // that it becomes; none: of no network here
};

constexpr StorageType kTypes[] = {
    {"DoubleStorage", 8, FileType::f64},
    {"FloatStorage", 4, FileType::f32},
    {"HalfStorage", 2, FileType::f32},
    {"LongStorage", 8, FileType::i64},
    {"BFloat16Storage", 2, FileType::bf16},
    {"IntStorage", 4, FileType::i32},
    {"ShortStorage", 2, FileType::i32},
    {"CharStorage", 1, FileType::i32},
    {"ByteStorage", 1, FileType::u8},
    {"BoolStorage", 1, FileType::u8},
    {"ComplexFloatStorage", 8, {}},
    {"ComplexDoubleStorage", 16, {}},
    {"QInt8Storage", 1, {}},
    {"QUInt8Storage", 1, {}},
    {"QInt32Storage", 4, {}},
    {"UntypedStorage", 1, {}},
};

// Bytes that tensors may have in all, beyond what the file holds: those that expand() made repeat their elements.
constexpr std::size_t kRepeated = std::size_t{1} << 28;

// Null for a type that is not known.
const StorageType* type_of(const PickleStorage& storage) {
  const auto* const found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const StorageType& t) { return t.name == storage.type; });
  return found == std::end(kTypes) ? nullptr : found;
}

bool is_readable(const PickleTensor& tensor) {
  const StorageType* const type = type_of(tensor.storage);
  return type != nullptr && type->type.has_value();
}

template <typename Narrow>
Bytes widen(const Bytes& bytes) {
  Bytes out(bytes.size() / sizeof(Narrow) * 4);
  for (std::size_t i = 0; i * sizeof(Narrow) < bytes.size(); ++i) {
    Narrow narrow;
    std::memcpy(&narrow, &bytes[i * sizeof(Narrow)], sizeof(Narrow));
    const std::int32_t wide = narrow;
    std::memcpy(&out[4 * i], &wide, 4);
  }
  return out;
}

Bytes widened(const PickleStorage& storage, Bytes bytes) {
  if (storage.type == "HalfStorage") return widen_half(bytes);
  if (storage.type == "ShortStorage") return widen<std::int16_t>(bytes);
  if (storage.type == "CharStorage") return widen<std::int8_t>(bytes);
  return bytes;
}

// The storages of a file, by key.
using Storages = std::map<std::string, Bytes>;

// The elements of a readable tensor in row-major order. `budget` bytes are left for all tensors of the file.
NamedArray gather(const std::string& where, const PickleTensor& tensor, const Storages& storages, std::size_t& budget) {
  const StorageType& type = *type_of(tensor.storage);
  const auto found = storages.find(tensor.storage.key);
  check(found != storages.end(), "{}: its storage {} is not in the file", where, in_quotes(tensor.storage.key));
  const Bytes& source = found->second;
  const std::size_t rank = tensor.shape.size();
  check(rank == tensor.strides.size() && rank <= 8, "{}: shape {} with {} strides", where, shape_text(tensor.shape),
        tensor.strides.size());
  NamedArray array{"", *type.type, tensor.shape, {}};
  std::int64_t count = 1, last = tensor.offset;  // elements, and the furthest of them
  bool sound = true;
  for (std::size_t d = 0; d < rank; ++d) {
    std::int64_t reach = 0;
    sound = sound && !__builtin_mul_overflow(count, tensor.shape[d], &count) &&
            !__builtin_mul_overflow(std::max<std::int64_t>(0, tensor.shape[d] - 1), tensor.strides[d], &reach) &&
            !__builtin_add_overflow(last, reach, &last);
  }
  const auto held = static_cast<std::int64_t>(source.size() / type.bytes);
  check(sound && (count == 0 || last < held), "{}: shape {} reaches beyond its storage of {} elements", where,
        shape_text(tensor.shape), held);
  check(static_cast<std::uint64_t>(count) <= budget / type.bytes,
        "{}: shape {} repeats the elements of its storage, and all tensors of the file are too large", where,
        shape_text(tensor.shape));
  const std::size_t size = static_cast<std::size_t>(count) * type.bytes;
  budget -= size;
  array.bytes.resize(size);
  std::vector<std::int64_t> index(rank, 0);
  std::int64_t at = tensor.offset;
  for (std::int64_t i = 0; i < count; ++i) {
    std::memcpy(&array.bytes[static_cast<std::size_t>(i) * type.bytes],
                &source[static_cast<std::size_t>(at) * type.bytes], type.bytes);
    for (std::size_t d = rank; d-- > 0;) {
      at += tensor.strides[d];
      if (++index[d] < tensor.shape[d]) break;
      at -= index[d] * tensor.strides[d];
      index[d] = 0;
    }
  }
  array.bytes = widened(tensor.storage, std::move(array.bytes));
  return array;
}

bool has_tensors(const PickleValue& value) {
  const auto* const dict = value.as<PickleDict>();
  return dict != nullptr && std::any_of(dict->items.begin(), dict->items.end(), [](const auto& item) {
           return item.second->template as<PickleTensor>() != nullptr;
         });
}

const PickleValue* value_of(const PickleDict& dict, std::string_view wanted) {
  for (const auto& [key, value] : dict.items) {
    const auto* const name = key->as<std::string>();
    if (name != nullptr && *name == wanted) return value;
  }
  return nullptr;
}

// "FILE: data.pkl: byte 2: "module.Class" ..." of what is no data; "" of anything else.
std::string object_text(const std::string& where, const PickleValue& value) {
  const auto* const object = value.as<PickleObject>();
  const auto* const global = value.as<PickleGlobal>();
  if (object == nullptr && global == nullptr) return "";
  return fmt::format("{}: byte {}: {}, which is Python's to make: nothing of a file is ever called here, refused",
                     where, object != nullptr ? object->at : global->at,
                     in_quotes(object != nullptr ? object->name : global->name));
}

constexpr std::array<std::string_view, 6> kStateDicts = {"state_dict", "model_state_dict", "model",
                                                         "net",        "params",           "student"};

// Under a known key before the whole: a tensor may lie beside the state dict, such as the best accuracy so far. Then
// under whatever key is the only one with tensors. A wrapper may lie in another, as {"model": {"state_dict": ...}} does.
const PickleDict* known_state_dict(const PickleDict& outer, int depth) {
  constexpr int kDeepest = 3;
  for (const std::string_view wanted : kStateDicts) {
    const PickleValue* const value = value_of(outer, wanted);
    if (value != nullptr && has_tensors(*value)) return value->as<PickleDict>();
  }
  for (const std::string_view wanted : kStateDicts) {
    const PickleValue* const value = value_of(outer, wanted);
    const auto* const dict = value == nullptr ? nullptr : value->as<PickleDict>();
    if (dict == nullptr || depth == kDeepest) continue;
    if (const PickleDict* const found = known_state_dict(*dict, depth + 1)) return found;
  }
  return nullptr;
}

const PickleDict* find_state_dict(const PickleValue& root) {
  const PickleDict& outer = *root.as<PickleDict>();
  if (const PickleDict* const known = known_state_dict(outer, 1)) return known;
  if (has_tensors(root)) return &outer;
  const PickleDict* only = nullptr;
  for (const auto& [key, value] : outer.items) {
    if (!has_tensors(*value)) continue;
    if (only != nullptr) return nullptr;
    only = value->as<PickleDict>();
  }
  return only;
}

const PickleDict& state_dict_of(const std::string& path, const std::string& where, const PickleValue& root) {
  const std::string object = object_text(where, root);
  check(object.empty(), "{}; if the file is to be trusted, {}", object, kAdvice);
  const auto* const outer = root.as<PickleDict>();
  check(outer != nullptr, "{}: holds no dictionary of tensors; {}", path, kAdvice);
  if (const PickleDict* const found = find_state_dict(root)) return *found;
  for (const std::string_view wanted : kStateDicts) {
    const PickleValue* const value = value_of(*outer, wanted);
    const std::string instead = value == nullptr ? "" : object_text(where, *value);
    check(instead.empty(), "{}; it lies under {} where a state dict should; {}", instead,
          in_quotes(std::string(wanted)), kAdvice);
  }
  std::vector<std::string> keys;
  std::string kind;
  for (const auto& [key, value] : outer->items) {
    const auto* const name = key->as<std::string>();
    if (name == nullptr || keys.size() == 10) continue;
    keys.push_back(in_quotes(*name));
    const auto* const made = value->as<PickleObject>();
    if (kind.empty() && made != nullptr) kind = fmt::format("; {} is of {}", keys.back(), in_quotes(made->name));
  }
  fail(
      "{}: no state dict in it, neither as a whole nor under \"state_dict\", \"model_state_dict\", \"model\", \"net\", "
      "\"params\" or the only key that has tensors; its keys: {}{}",
      path, keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", ")), kind);
}

WeightFile assemble(const std::string& path, const std::string& where, const PickleValue& root,
                    const Storages& storages) {
  WeightFile file;
  file.path = path;
  std::size_t budget = kRepeated;
  for (const auto& [key, bytes] : storages) budget += 2 * bytes.size();  // some weights are shared
  std::set<std::string> names;
  const PickleDict& weights = state_dict_of(path, where, root);
  for (const auto& [key, value] : weights.items) {
    const auto* const name = key->as<std::string>();
    const auto* const tensor = value->as<PickleTensor>();
    if (name != nullptr && tensor == nullptr && value->as<PickleObject>() != nullptr) {
      file.unread.push_back({*name, "an object of " + in_quotes(value->as<PickleObject>()->name)});
    }
    if (tensor == nullptr) continue;
    check(name != nullptr, "{}: a tensor whose key is no text", path);
    check(names.insert(*name).second, "{}: two tensors named {}", path, in_quotes(*name));
    if (!is_readable(*tensor)) {
      file.unread.push_back({*name, "of type " + in_quotes(tensor->storage.type)});
      continue;
    }
    NamedArray array = gather(fmt::format("{}: {}", path, in_quotes(*name)), *tensor, storages, budget);
    array.name = *name;
    file.arrays.push_back(std::move(array));
  }
  const auto* const outer = root.as<PickleDict>();
  const PickleValue* const arch = value_of(*outer, "arch");
  if (arch != nullptr && arch->as<std::string>() != nullptr) file.metadata["arch"] = *arch->as<std::string>();
  const PickleValue* const student = value_of(*outer, "student");
  if (student != nullptr && student->as<PickleDict>() == &weights && value_of(*outer, "teacher") != nullptr) {
    file.note = "of its two halves, \"student\" and \"teacher\", the student's is taken";
  }
  return file;
}

// ---- zip ----

WeightFile read_new(const std::string& path) {
  ZipFile zip(path);
  const std::string kind = foreign_kind(zip.entries());
  check(kind.empty(), "{}: is {}", path, kind);
  // PyTorch compresses nothing, so that no entry is larger than the file, nor are all of them.
  const std::uint64_t file_bytes = std::filesystem::file_size(path);
  std::uint64_t total = 0;
  std::map<std::string, const ZipEntry*> entries;  // by name, without that of the folder that holds them all
  for (const ZipEntry& entry : zip.entries()) {
    check(entry.size <= file_bytes && total + entry.size <= file_bytes,
          "{}: {}: {} bytes in a file of {}: compressed or altered", path, in_quotes(entry.name), entry.size,
          file_bytes);
    total += entry.size;
    const std::size_t slash = entry.name.find('/');
    const std::string inner = slash == std::string::npos ? entry.name : entry.name.substr(slash + 1);
    check(entries.emplace(inner, &entry).second, "{}: two entries named {}", path, in_quotes(entry.name));
  }
  if (const auto order = entries.find("byteorder"); order != entries.end()) {
    const Bytes bytes = zip.read(*order->second);
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    check(text == "little", "{}: its byte order is {}, expected \"little\"", path, in_quotes(text));
  }
  const std::string where = path + ": data.pkl";
  Unpickler unpickler(where);
  std::size_t used = 0;
  const PickleValue& root = unpickler.load(zip.read(*entries.at("data.pkl")), used);
  Storages storages;
  constexpr std::string_view kFolder = "data/";
  for (const auto& [name, entry] : entries) {
    if (name.starts_with(kFolder)) storages.emplace(name.substr(kFolder.size()), zip.read(*entry));
  }
  return assemble(path, where, root, storages);
}

// ---- before 1.6 ----

// Five pickles (magic number, version, description of the system, the value, the keys of the storages) and then the
// storages in the order of their keys, each after its length in elements.
WeightFile read_old(const std::string& path) {
  std::ifstream in = open_weight_file(path);
  Bytes bytes(std::filesystem::file_size(path));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  check(static_cast<std::size_t>(in.gcount()) == bytes.size(), "{}: byte {}: cannot be read", path, in.gcount());

  Unpickler unpickler(path);
  std::span<const std::byte> rest = std::span<const std::byte>(bytes).subspan(kOldMagic.size());
  const auto next = [&]() -> const PickleValue& {
    std::size_t used = 0;
    const PickleValue& value = unpickler.load(rest, used);
    rest = rest.subspan(used);
    return value;
  };
  const auto* const version = next().as<std::int64_t>();
  check(version != nullptr && *version == 1001, "{}: not version 1001 of PyTorch's older format", path);
  next();  // sizes of C types and the byte order of the machine that wrote the file
  const PickleValue& root = next();
  const auto* const keys = next().as<PickleList>();
  check(keys != nullptr, "{}: no list of storages", path);

  // The types stand in the value, the lengths in both places.
  std::map<std::string, PickleStorage> declared;
  for (const PickleValue& value : unpickler.values()) {
    if (const auto* const storage = value.as<PickleStorage>()) declared.emplace(storage->key, *storage);
  }
  Storages storages;
  for (const PickleValue* key : keys->items) {
    const auto* const name = key->as<std::string>();
    const auto found = name == nullptr ? declared.end() : declared.find(*name);
    check(found != declared.end(), "{}: a storage that no tensor uses", path);
    std::int64_t count = 0;
    const std::size_t at = bytes.size() - rest.size();
    check(rest.size() >= sizeof count, "{}: byte {}: truncated before the storage {}", path, at, in_quotes(*name));
    std::memcpy(&count, rest.data(), sizeof count);
    rest = rest.subspan(sizeof count);
    const StorageType* const type = type_of(found->second);
    check(type != nullptr, "{}: byte {}: a storage of type {}, whose length is not known", path, at,
          in_quotes(found->second.type));
    const std::size_t width = type->bytes;
    check(count >= 0 && static_cast<std::uint64_t>(count) <= rest.size() / width,
          "{}: byte {}: a storage of {} elements in a file that ends {} bytes later: truncated or altered", path, at,
          count, rest.size());
    const auto data = rest.first(static_cast<std::size_t>(count) * width);
    rest = rest.subspan(data.size());
    check(storages.emplace(*name, Bytes(data.begin(), data.end())).second, "{}: two storages named {}", path,
          in_quotes(*name));
  }
  check(rest.empty(), "{}: byte {}: {} bytes after the last storage", path, bytes.size() - rest.size(), rest.size());
  return assemble(path, path, root, storages);
}

template <std::size_t N>
bool begins_with(std::span<const std::byte> bytes, const std::array<unsigned char, N>& magic) {
  return bytes.size() >= N && std::memcmp(bytes.data(), magic.data(), N) == 0;
}

}  // namespace

bool is_torch_file(std::span<const std::byte> first_bytes) {
  return begins_with(first_bytes, kZipMagic) || begins_with(first_bytes, kOldMagic);
}

WeightFile read_torch_file(const std::string& path) {
  Bytes first(kOldMagic.size());
  std::ifstream in = open_weight_file(path);
  in.read(reinterpret_cast<char*>(first.data()), static_cast<std::streamsize>(first.size()));
  first.resize(static_cast<std::size_t>(in.gcount()));
  check(is_torch_file(first), "{}: begins like neither of PyTorch's two formats; {}", path, kAdvice);
  return begins_with(first, kZipMagic) ? read_new(path) : read_old(path);
}

}  // namespace retort
