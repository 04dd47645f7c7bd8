// Parameters to and from files: names, layouts and types as PyTorch's tools have them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "engine/parameters.h"
#include "engine/suggest.h"
#include "engine/weight_names.h"

namespace retort {
namespace {

std::vector<std::int64_t> file_shape(const Parameter& p) {
  const Shape& s = p.shape;
  if (p.kind == ParameterKind::conv_weight) return {s[0], s[3], s[1], s[2]};
  std::vector<std::int64_t> out;
  for (int axis = 0; axis < s.rank(); ++axis) out.push_back(s[axis]);
  return out;
}

std::vector<std::int64_t> file_shape(const Buffer& b) {
  if (b.dtype == DType::i32 && b.shape.numel() == 1) return {};
  std::vector<std::int64_t> out;
  for (int axis = 0; axis < b.shape.rank(); ++axis) out.push_back(b.shape[axis]);
  return out;
}

// Copies element by element from memory order to file order (or back): OHWI <-> OIHW, everything else as it is.
template <typename T>
void reorder(const Parameter& p, const T* from, T* to, bool to_file) {
  if (p.kind != ParameterKind::conv_weight) {
    std::copy(from, from + p.shape.numel(), to);
    return;
  }
  const std::int64_t outputs = p.shape[0], area = p.shape[1] * p.shape[2], inputs = p.shape[3];
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t a = 0; a < area; ++a) {
      for (std::int64_t i = 0; i < inputs; ++i) {
        const std::int64_t memory = (o * area + a) * inputs + i, file = (o * inputs + i) * area + a;
        to[to_file ? file : memory] = from[to_file ? memory : file];
      }
    }
  }
}

template <typename From, typename To>
std::vector<To> cast(const std::vector<std::byte>& bytes) {
  std::vector<From> values(bytes.size() / sizeof(From));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  std::vector<To> out;
  out.reserve(values.size());
  for (const From v : values) out.push_back(static_cast<To>(static_cast<double>(v)));
  return out;
}

// As T = float or double; Error unless the array is of a floating type.
template <typename T>
std::vector<T> floats_of(const std::string& path, const NamedArray& array) {
  switch (array.dtype) {
    case FileType::f64:
      return cast<double, T>(array.bytes);
    case FileType::f32:
      return cast<float, T>(array.bytes);
    case FileType::bf16: {
      std::vector<bf16> values(array.bytes.size() / 2);
      if (!values.empty()) std::memcpy(values.data(), array.bytes.data(), array.bytes.size());
      return {values.begin(), values.end()};
    }
    default:
      fail("{}: {} is {}, expected a floating type", path, in_quotes(array.name), name_of(array.dtype));
  }
}

std::vector<std::int32_t> integers_of(const std::string& path, const NamedArray& array) {
  check(array.dtype == FileType::i64 || array.dtype == FileType::i32, "{}: {} is {}, expected I64", path,
        in_quotes(array.name), name_of(array.dtype));
  if (array.dtype == FileType::i32) return cast<std::int32_t, std::int32_t>(array.bytes);
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < array.bytes.size(); i += 8) {
    std::int64_t v = 0;
    std::memcpy(&v, &array.bytes[i], 8);
    check(v >= 0 && v <= std::numeric_limits<std::int32_t>::max(), "{}: {} counts {}, which is out of range", path,
          in_quotes(array.name), v);
    out.push_back(static_cast<std::int32_t>(v));
  }
  return out;
}

// How often a layer has seen a batch, which changes nothing that is computed: of whatever type and shape; none where it
// is no number.
std::optional<std::int32_t> count_of(const std::string& path, const NamedArray& array) {
  if (array.numel() != 1) return std::nullopt;
  if (array.dtype == FileType::i64 || array.dtype == FileType::i32) return integers_of(path, array).at(0);
  if (array.dtype == FileType::u8) return static_cast<std::int32_t>(array.bytes.at(0));
  const double value = floats_of<double>(path, array).at(0);
  const bool whole = value >= 0 && value <= std::numeric_limits<std::int32_t>::max();
  return whole ? std::optional(static_cast<std::int32_t>(value)) : std::nullopt;
}

// Of the network's type; Error where one of them is not finite.
template <typename T>
std::vector<T> finite_floats_of(const std::string& path, const NamedArray& array) {
  std::vector<T> values = floats_of<T>(path, array);
  check(std::all_of(values.begin(), values.end(), [](T v) { return std::isfinite(v); }),
        "{}: {} holds NaN or infinity; it is of no use", path, array.name);
  return values;
}

template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> out(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

std::string described(const std::string& arch, const std::string& classes) {
  return classes.empty() || classes == "0" ? arch : fmt::format("{} ({} classes)", arch, classes);
}

void check_same_model(const WeightFile& file, const LoadOptions& options) {
  const std::string arch = file.metadata_or("arch", ""), classes = file.metadata_or("classes", "");
  const std::string wanted = options.classes > 0 ? std::to_string(options.classes) : "";
  const bool other_arch = !arch.empty() && !options.arch.empty() && arch != options.arch;
  // Who skips the classifier brings his own number of classes.
  const bool other_classes = !classes.empty() && !wanted.empty() && classes != wanted && options.skip.empty();
  check(!other_arch && !other_classes, "{}: holds {}, the config asks for {}", file.path,
        described(arch.empty() ? "a network" : arch, classes), described(options.arch, wanted));
}

}  // namespace

void ParameterStore::append_flat(const Tensor& flat, const std::string& prefix, std::vector<NamedArray>& out) const {
  const auto append = [&]<typename T>(T, FileType type) {
    for (const auto& p : parameters_) {  // one after another: a host copy of all would be a second one of the network
      const std::vector<T> host = flat.slice(p->first, p->shape).to_host<T>();
      std::vector<std::byte> bytes(host.size() * sizeof(T));
      reorder(*p, host.data(), reinterpret_cast<T*>(bytes.data()), true);
      out.push_back({prefix + p->name, type, file_shape(*p), std::move(bytes)});
    }
  };
  check(flat.numel() == size_, "parameters: a state of {} elements for an arena of {}", flat.numel(), size_);
  flat.dtype() == DType::f64 ? append(0.0, FileType::f64) : append(0.0f, FileType::f32);
}

void ParameterStore::read_flat(const WeightFile& file, const std::string& prefix, const Tensor& flat) const {
  check(flat.numel() == size_, "parameters: a state of {} elements for an arena of {}", flat.numel(), size_);
  std::unordered_map<std::string, const NamedArray*> arrays;
  for (const NamedArray& array : file.arrays) arrays.emplace(array.name, &array);
  const auto read = [&]<typename T>(T, FileType type) {
    std::vector<T> host(static_cast<std::size_t>(size_), T{0});
    for (const auto& p : parameters_) {
      const std::string name = prefix + p->name;
      const auto it = arrays.find(name);
      check(it != arrays.end(), "{}: {} is missing", file.path, in_quotes(name));
      const NamedArray& array = *it->second;
      check(array.shape == file_shape(*p) && array.dtype == type, "{}: {} is {} of shape {}, expected {} of shape {}",
            file.path, in_quotes(name), name_of(array.dtype), shape_text(array.shape), name_of(type),
            shape_text(file_shape(*p)));
      std::vector<T> ordered(static_cast<std::size_t>(p->shape.numel()));
      std::memcpy(ordered.data(), array.bytes.data(), array.bytes.size());
      reorder(*p, ordered.data(), host.data() + p->first, false);
    }
    flat.copy_from_host(host.data());
  };
  flat.dtype() == DType::f64 ? read(0.0, FileType::f64) : read(0.0f, FileType::f32);
}

std::vector<NamedArray> ParameterStore::to_arrays() const {
  require_materialized("to_arrays()");
  std::vector<NamedArray> out;
  append_flat(values_, "", out);
  for (const auto& b : buffers_) {
    NamedArray array{b->name, FileType::i64, file_shape(*b), {}};
    if (b->value.dtype() == DType::f64) {
      array.dtype = FileType::f64;
      array.bytes = bytes_of(b->value.to_host<double>());
    } else if (b->value.dtype() == DType::f32) {
      array.dtype = FileType::f32;
      array.bytes = bytes_of(b->value.to_host<float>());
    } else {
      const std::vector<std::int32_t> counts = b->value.to_host<std::int32_t>();
      array.bytes = bytes_of(std::vector<std::int64_t>(counts.begin(), counts.end()));
    }
    out.push_back(std::move(array));
  }
  return out;
}

std::vector<WantedArray> ParameterStore::wanted() const {
  std::vector<WantedArray> all;
  for (const auto& p : parameters_) all.push_back({p->name, file_shape(*p)});
  for (const auto& b : buffers_) all.push_back({b->name, file_shape(*b)});
  return all;
}

LoadReport ParameterStore::load(const WeightFile& file, const LoadOptions& options) {
  require_materialized("load()");
  check_same_model(file, options);
  const std::vector<WantedArray> all = wanted();
  const ArrayMatch match = match_arrays(file, all, options.skip);
  check(!options.strict || (match.missing.empty() && match.unexpected.empty()), "{}: does not fit {}{}", file.path,
        options.arch.empty() ? "the network" : options.arch, misfit_text(file, all, match));
  const auto found = [&](const std::string& name) -> const NamedArray* {
    const auto it = match.found.find(name);
    return it == match.found.end() ? nullptr : it->second;
  };
  const auto read = [&]<typename T>(T) {
    std::vector<T> host = values_.to_host<T>();
    for (const auto& p : parameters_) {
      const NamedArray* const array = found(p->name);
      if (array != nullptr) reorder(*p, finite_floats_of<T>(file.path, *array).data(), host.data() + p->first, false);
    }
    std::vector<std::pair<Buffer*, std::vector<std::byte>>> contents;
    for (const auto& b : buffers_) {
      const NamedArray* const array = found(b->name);
      if (array == nullptr) continue;
      if (is_bookkeeping(b->name)) {
        const std::optional<std::int32_t> count = count_of(file.path, *array);
        if (count) contents.emplace_back(b.get(), bytes_of(std::vector<std::int32_t>{*count}));
      } else if (b->dtype == DType::i32) {
        contents.emplace_back(b.get(), bytes_of(integers_of(file.path, *array)));
      } else {
        contents.emplace_back(b.get(), bytes_of(finite_floats_of<T>(file.path, *array)));
      }
    }
    // Nothing has been changed up to here, and nothing can be refused from here on.
    values_.copy_from_host(host.data());
    for (const auto& [b, bytes] : contents) b->value.copy_from_host(bytes.data());
  };
  values_.dtype() == DType::f64 ? read(0.0) : read(0.0f);
  refresh_shadow();
  return {match.missing, match.unexpected, match.note};
}

}  // namespace retort
