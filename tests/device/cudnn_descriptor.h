// Backend descriptors of the stand-in for cuDNN: typed attributes, held as they were set. What each type of descriptor
// knows stands in one table (cudnn_attributes.cpp), the rules at finalize in cudnn_rules.cpp. From NVIDIA's cuDNN
// documentation, "cudnn_graph Library".
#pragma once

#include <cudnn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace retort::standin::cudnn {

// Thrown inside the library; the entry points turn it into a status and a text for cudnnGetLastErrorString.
struct Refusal {
  cudnnStatus_t status;
  std::string text;
};

template <typename... Args>
[[noreturn]] void refuse(cudnnStatus_t status, fmt::format_string<Args...> text, Args&&... args) {
  throw Refusal{status, fmt::format(text, std::forward<Args>(args)...)};
}
template <typename... Args>
void require(bool condition, cudnnStatus_t status, fmt::format_string<Args...> text, Args&&... args) {
  if (!condition) refuse(status, text, std::forward<Args>(args)...);
}

struct Descriptor;
using DescriptorRef = std::shared_ptr<Descriptor>;

struct Value {
  std::int64_t count = 0;
  std::vector<unsigned char> bytes;  // of everything but descriptors
  std::vector<DescriptorRef> parts;
};

struct Engine;   // cudnn_engines.h
struct Program;  // cudnn_program.h

struct Descriptor {
  cudnnBackendDescriptorType_t type{};
  bool finalized = false;
  // By cudnnBackendDestroyDescriptor. NVIDIA does not say whether what refers to a descriptor keeps it alive; here it
  // keeps its values, but nothing that refers to a destroyed one can be executed.
  bool destroyed = false;
  std::map<cudnnBackendAttributeName_t, Value> values;
  const Engine* engine = nullptr;          // of an engine
  std::shared_ptr<const Program> program;  // of an execution plan

  bool has(cudnnBackendAttributeName_t name) const { return values.contains(name); }
  const DescriptorRef& part(cudnnBackendAttributeName_t name, std::size_t index = 0) const;
  std::int64_t number(cudnnBackendAttributeName_t name) const { return numbers(name).at(0); }
  std::vector<std::int64_t> numbers(cudnnBackendAttributeName_t name) const { return all<std::int64_t>(name); }
  // The first value, or `fallback` where none was set.
  template <typename T>
  T one(cudnnBackendAttributeName_t name, T fallback = {}) const {
    return has(name) ? all<T>(name).at(0) : fallback;
  }
  template <typename T>
  std::vector<T> all(cudnnBackendAttributeName_t name) const;
  template <typename T>
  void put(cudnnBackendAttributeName_t name, const std::vector<T>& list);
  void put(cudnnBackendAttributeName_t name, std::vector<DescriptorRef> list);
};

const char* name_of(cudnnBackendDescriptorType_t type);  // "TENSOR"; null for a type that the stand-in does not know

// cudnnBackendSetAttribute, cudnnBackendGetAttribute and cudnnBackendFinalize on descriptors that are alive.
// `parts`: what the array names, where it is one of descriptors.
void set_attribute(Descriptor& descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   std::int64_t count, const void* elements, std::vector<DescriptorRef> parts);
void get_attribute(const Descriptor& descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   std::int64_t requested, std::int64_t* count, void* elements, const std::vector<DescriptorRef>& into);
void finalize(const DescriptorRef& descriptor);

// --- definitions ----------------------------------------------------------------------------------------------------

template <typename T>
std::vector<T> Descriptor::all(cudnnBackendAttributeName_t name) const {
  const Value& value = values.at(name);
  std::vector<T> list(static_cast<std::size_t>(value.count));
  if (!list.empty()) std::copy_n(value.bytes.data(), value.bytes.size(), reinterpret_cast<unsigned char*>(list.data()));
  return list;
}

template <typename T>
void Descriptor::put(cudnnBackendAttributeName_t name, const std::vector<T>& list) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(list.data());
  values[name] = {static_cast<std::int64_t>(list.size()), {bytes, bytes + list.size() * sizeof(T)}, {}};
}

}  // namespace retort::standin::cudnn
