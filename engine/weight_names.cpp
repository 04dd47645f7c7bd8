#include "engine/weight_names.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>

namespace retort {
namespace {

// A name that is longer, or has more wrappers, is no network's.
constexpr std::size_t kLongest = 300;
constexpr int kMostWrappers = 16;

// What stands in front of a whole network's names. A number is the place in an nn.Sequential: 1 behind a normaliser.
constexpr std::string_view kWrappers[] = {
    "module", "model",      "_orig_mod",       "net",     "network",       "backbone", "encoder",
    "resnet", "base_model", "_forward_module", "student", "student_model", "model_s",
};
constexpr std::string_view kStudents[] = {"student", "student_model", "model_s"};
constexpr std::string_view kTeachers[] = {"teacher", "teacher_model", "model_t"};

// These stand in front of a part of one.
constexpr std::string_view kInnerWrappers[] = {"module", "_orig_mod", "_fsdp_wrapped_module",
                                               "_checkpoint_wrapped_module"};

// Whole components, '#' standing for a number; at the beginning of the name where the rule begins with '^', else
// anywhere. Each rule is applied once, in this order.
struct Rule {
  std::string_view theirs, ours;
};

constexpr Rule kRules[] = {
    // weiaicunzai/pytorch-cifar100
    {"^conv1.0", "conv1"},
    {"^conv1.1", "bn1"},
    {"^conv2_x", "layer1"},
    {"^conv3_x", "layer2"},
    {"^conv4_x", "layer3"},
    {"^conv5_x", "layer4"},
    {"residual_function.0", "conv1"},
    {"residual_function.1", "bn1"},
    {"residual_function.3", "conv2"},
    {"residual_function.4", "bn2"},
    {"residual_function.6", "conv3"},
    {"residual_function.7", "bn3"},
    // Hugging Face's transformers, behind "resnet."
    {"^embedder.embedder.convolution", "conv1"},
    {"^embedder.embedder.normalization", "bn1"},
    {"^encoder.stages.0.layers", "layer1"},
    {"^encoder.stages.1.layers", "layer2"},
    {"^encoder.stages.2.layers", "layer3"},
    {"^encoder.stages.3.layers", "layer4"},
    {"layer.0.convolution", "conv1"},
    {"layer.0.normalization", "bn1"},
    {"layer.1.convolution", "conv2"},
    {"layer.1.normalization", "bn2"},
    {"layer.2.convolution", "conv3"},
    {"layer.2.normalization", "bn3"},
    {"shortcut.convolution", "downsample.0"},
    {"shortcut.normalization", "downsample.1"},
    // kuangliu/pytorch-cifar and the many that follow it
    {"shortcut", "downsample"},
    // the last layer: kuangliu, timm, OpenMMLab ("head.fc"), Cadene ("last_linear"); behind a Dropout ("fc.1")
    {"^linear", "fc"},
    {"^classifier", "fc"},
    {"^head.fc", "fc"},
    {"^last_linear", "fc"},
    {"^fc.fc", "fc"},
    {"^fc.#", "fc"},
};

bool is_number(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
}

std::string_view first_component(std::string_view name) {
  return name.substr(0, name.find('.'));
}

template <std::size_t N>
bool is_one_of(std::string_view word, const std::string_view (&words)[N]) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

// How many characters of `name` the components of `pattern` are; 0 where they do not stand at its beginning.
std::size_t matched(std::string_view name, std::string_view pattern) {
  const std::size_t whole = name.size();
  for (;;) {
    const std::string_view wanted = first_component(pattern), found = first_component(name);
    if (wanted == "#" ? !is_number(found) : wanted != found) return 0;
    name.remove_prefix(found.size());
    if (wanted.size() == pattern.size()) return whole - name.size();
    if (name.empty()) return 0;
    name.remove_prefix(1);
    pattern.remove_prefix(wanted.size() + 1);
  }
}

// `at` is where a component begins; the next one's beginning, or the end.
std::size_t next_component(const std::string& name, std::size_t at) {
  const std::size_t dot = name.find('.', at);
  return dot == std::string::npos ? name.size() : dot + 1;
}

void apply(const Rule& rule, std::string& name) {
  const bool at_start = rule.theirs.starts_with('^');
  const std::string_view pattern = rule.theirs.substr(at_start ? 1 : 0);
  for (std::size_t at = 0; at < name.size(); at = next_component(name, at)) {
    if (const std::size_t length = matched(std::string_view(name).substr(at), pattern); length > 0) {
      name.replace(at, length, rule.ours);
      return;
    }
    if (at_start) return;
  }
}

std::string in_our_words(std::string name) {
  for (std::size_t at = next_component(name, 0); at < name.size();) {
    const std::string_view component = first_component(std::string_view(name).substr(at));
    if (is_one_of(component, kInnerWrappers) && at + component.size() < name.size()) {
      name.erase(at, component.size() + 1);
    } else {
      at = next_component(name, at);
    }
  }
  for (const Rule& rule : kRules) apply(rule, name);
  return name;
}

// visit(name, in our words), with one wrapper less each time, until it is true.
bool any_unwrapped(std::string name, const std::function<bool(const std::string&, const std::string&)>& visit) {
  if (name.size() > kLongest) return false;
  for (int wrappers = 0; wrappers <= kMostWrappers; ++wrappers) {
    if (visit(name, in_our_words(name))) return true;
    const std::string_view first = first_component(name);
    if (first.size() == name.size() || !(is_one_of(first, kWrappers) || is_number(first))) return false;
    name.erase(0, first.size() + 1);
  }
  return false;
}

template <std::size_t N>
bool lies_in(const std::string& name, const std::string_view (&halves)[N]) {
  for (std::string_view rest = name; !rest.empty();) {
    const std::string_view first = first_component(rest);
    if (is_one_of(first, halves)) return first.size() < rest.size();
    if (first.size() == rest.size() || !is_one_of(first, kWrappers)) return false;
    rest.remove_prefix(first.size() + 1);
  }
  return false;
}

}  // namespace

std::string our_name(const std::string& name, const KnownNames& known) {
  std::string found;
  any_unwrapped(name, [&](const std::string& plain, const std::string& ours) {
    found = known(plain) ? plain : known(ours) ? ours : "";
    return !found.empty();
  });
  return found;
}

bool begins_like_ours(const std::string& name, const KnownNames& known) {
  return any_unwrapped(name, [&](const std::string& plain, const std::string& ours) {
    return known(std::string(first_component(plain))) || known(std::string(first_component(ours)));
  });
}

std::string without_numbers(const std::string& name) {
  std::string out;
  std::copy_if(name.begin(), name.end(), std::back_inserter(out),
               [](char c) { return std::isdigit(static_cast<unsigned char>(c)) == 0; });
  return out;
}

bool is_bookkeeping(const std::string& name) {
  constexpr std::string_view kNames[] = {"num_batches_tracked", "total_ops", "total_params"};
  const std::size_t dot = name.rfind('.');
  return is_one_of(std::string_view(name).substr(dot == std::string::npos ? 0 : dot + 1), kNames);
}

bool of_student(const std::string& name) {
  return lies_in(name, kStudents);
}

bool of_teacher(const std::string& name) {
  return lies_in(name, kTeachers);
}

}  // namespace retort
