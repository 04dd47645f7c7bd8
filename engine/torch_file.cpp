#include "engine/torch_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string_view>

#include "engine/suggest.h"
#include "engine/unpickler.h"
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
  std::size_t bytes;  // of an element in the file
  FileType type;      // that it becomes
};

constexpr StorageType kTypes[] = {
    {"DoubleStorage", 8, FileType::f64}, {"FloatStorage", 4, FileType::f32},     {"HalfStorage", 2, FileType::f32},
    {"LongStorage", 8, FileType::i64},   {"BFloat16Storage", 2, FileType::bf16}, {"IntStorage", 4, FileType::i32},
    {"ShortStorage", 2, FileType::i32},  {"CharStorage", 1, FileType::i32},      {"ByteStorage", 1, FileType::u8},
    {"BoolStorage", 1, FileType::u8},
};

const StorageType& type_of(const PickleStorage& storage) {
  return *std::find_if(std::begin(kTypes), std::end(kTypes),
                       [&](const StorageType& t) { return t.name == storage.type; });
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

// The elements of a tensor in row-major order. `budget` bytes are left for all tensors of the file.
NamedArray gather(const std::string& where, const PickleTensor& tensor, const Storages& storages, std::size_t& budget) {
  const StorageType& type = type_of(tensor.storage);
  const auto found = storages.find(tensor.storage.key);
  check(found != storages.end(), "{}: its storage {} is not in the file", where, in_quotes(tensor.storage.key));
  const Bytes& source = found->second;
  const std::size_t rank = tensor.shape.size();
  check(rank == tensor.strides.size() && rank <= 8, "{}: shape {} with {} strides", where, shape_text(tensor.shape),
        tensor.strides.size());
  NamedArray array{"", type.type, tensor.shape, {}};
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
  const std::size_t size = static_cast<std::size_t>(count) * type.bytes;
  check(count <= held && size <= budget, "{}: shape {} repeats the elements of its storage", where,
        shape_text(tensor.shape));
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

// Under a known key before the whole: a tensor may lie beside the state dict, such as the best accuracy so far.
const PickleDict& find_state_dict(const std::string& path, const PickleValue& root) {
  const auto* const outer = root.as<PickleDict>();
  check(outer != nullptr, "{}: holds no dictionary of tensors; {}", path, kAdvice);
  for (const char* wanted : {"state_dict", "model_state_dict", "model", "net", "params"}) {
    for (const auto& [key, value] : outer->items) {
      const auto* const name = key->as<std::string>();
      if (name != nullptr && *name == wanted && has_tensors(*value)) return *value->as<PickleDict>();
    }
  }
  if (has_tensors(root)) return *outer;
  std::vector<std::string> keys;
  for (const auto& [key, value] : outer->items) {
    const auto* const name = key->as<std::string>();
    if (name != nullptr && keys.size() < 10) keys.push_back(in_quotes(*name));
  }
  fail(
      "{}: no state dict in it, neither as a whole nor under \"state_dict\", \"model_state_dict\", \"model\", \"net\" "
      "or \"params\"; its keys: {}",
      path, keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", ")));
}

void strip_prefixes(std::vector<NamedArray>& arrays) {
  for (bool stripped = !arrays.empty(); stripped;) {
    stripped = false;
    for (const std::string_view prefix : {"module.", "model.", "_orig_mod."}) {
      if (!std::all_of(arrays.begin(), arrays.end(), [&](const NamedArray& a) { return a.name.starts_with(prefix); })) {
        continue;
      }
      for (NamedArray& array : arrays) array.name.erase(0, prefix.size());
      stripped = true;
    }
  }
}

WeightFile assemble(const std::string& path, const PickleValue& root, const Storages& storages) {
  WeightFile file;
  file.path = path;
  std::size_t budget = 0;
  for (const auto& [key, bytes] : storages) budget += 2 * bytes.size();  // some weights are shared
  std::set<std::string> names;
  for (const auto& [key, value] : find_state_dict(path, root).items) {
    const auto* const name = key->as<std::string>();
    const auto* const tensor = value->as<PickleTensor>();
    if (tensor == nullptr) continue;
    check(name != nullptr, "{}: a tensor whose key is no text", path);
    check(names.insert(*name).second, "{}: two tensors named {}", path, in_quotes(*name));
    NamedArray array = gather(fmt::format("{}: {}", path, in_quotes(*name)), *tensor, storages, budget);
    array.name = *name;
    file.arrays.push_back(std::move(array));
  }
  strip_prefixes(file.arrays);
  return file;
}

// ---- zip ----

struct CloseArchive {
  void operator()(archive* a) const { archive_read_free(a); }
};

// Every entry, without the name of the folder that holds them all. PyTorch compresses nothing, so no entry is larger
// than the file.
std::map<std::string, Bytes> read_zip(const std::string& path) {
  const std::uint64_t file_bytes = std::filesystem::file_size(path);
  const std::unique_ptr<archive, CloseArchive> zip(archive_read_new());
  check(zip != nullptr, "{}: out of memory", path);
  archive_read_support_format_zip_seekable(zip.get());
  const auto refuse = [&] {
    const char* const text = archive_error_string(zip.get());
    fail("{}: not a sound zip archive: {}", path, text == nullptr ? "truncated or altered" : text);
  };
  if (archive_read_open_filename(zip.get(), path.c_str(), 1 << 16) != ARCHIVE_OK) refuse();
  std::map<std::string, Bytes> entries;
  std::uint64_t total = 0;
  archive_entry* entry = nullptr;
  for (;;) {
    const int status = archive_read_next_header(zip.get(), &entry);
    if (status == ARCHIVE_EOF) break;
    if (status != ARCHIVE_OK) refuse();
    const char* const name = archive_entry_pathname(entry);
    check(name != nullptr, "{}: an entry without a name", path);
    const std::string full = name;
    const auto size = static_cast<std::uint64_t>(std::max<std::int64_t>(0, archive_entry_size(entry)));
    check(size <= file_bytes && total + size <= file_bytes, "{}: {}: {} bytes in a file of {}: compressed or altered",
          path, in_quotes(full), size, file_bytes);
    total += size;
    Bytes bytes(size);
    std::size_t got = 0;
    while (got < size) {
      const la_ssize_t count = archive_read_data(zip.get(), bytes.data() + got, size - got);
      if (count < 0) refuse();
      check(count > 0, "{}: {} ends after {} of {} bytes", path, in_quotes(full), got, size);
      got += static_cast<std::size_t>(count);
    }
    std::byte beyond;
    if (archive_read_data(zip.get(), &beyond, 1) != 0) refuse();  // also where the checksum is compared
    const std::size_t slash = full.find('/');
    const std::string inner = slash == std::string::npos ? full : full.substr(slash + 1);
    check(entries.emplace(inner, std::move(bytes)).second, "{}: two entries named {}", path, in_quotes(full));
  }
  return entries;
}

WeightFile read_new(const std::string& path) {
  std::map<std::string, Bytes> entries = read_zip(path);
  const auto pickle = entries.find("data.pkl");
  check(!entries.contains("constants.pkl"), "{}: a TorchScript archive, not a state dict; {}", path, kAdvice);
  check(pickle != entries.end(), "{}: a zip archive without data.pkl: not a file of PyTorch's", path);
  if (const auto order = entries.find("byteorder"); order != entries.end()) {
    const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
    check(text == "little", "{}: its byte order is {}, expected \"little\"", path, in_quotes(std::string(text)));
  }
  Unpickler unpickler(path + ": data.pkl");
  std::size_t used = 0;
  const PickleValue& root = unpickler.load(pickle->second, used);
  Storages storages;
  constexpr std::string_view kFolder = "data/";
  for (auto& [name, bytes] : entries) {
    if (name.starts_with(kFolder)) storages.emplace(name.substr(kFolder.size()), std::move(bytes));
  }
  return assemble(path, root, storages);
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
    const std::size_t width = type_of(found->second).bytes;
    check(count >= 0 && static_cast<std::uint64_t>(count) <= rest.size() / width,
          "{}: byte {}: a storage of {} elements in a file that ends {} bytes later: truncated or altered", path, at,
          count, rest.size());
    const auto data = rest.first(static_cast<std::size_t>(count) * width);
    rest = rest.subspan(data.size());
    check(storages.emplace(*name, Bytes(data.begin(), data.end())).second, "{}: two storages named {}", path,
          in_quotes(*name));
  }
  check(rest.empty(), "{}: byte {}: {} bytes after the last storage", path, bytes.size() - rest.size(), rest.size());
  return assemble(path, root, storages);
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
