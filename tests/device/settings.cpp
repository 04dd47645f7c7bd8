// What the environment asks for, and what is said at the end of the process.
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tests/device/capture.h"
#include "tests/device/standin.h"

namespace retort::standin {
namespace {

std::string_view environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::uint64_t number(std::string_view text, std::string_view where) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) finding("{}: \"{}\" is not a number", where, text);
  return value;
}

void set_order(Settings& settings, std::string_view text) {
  using Order = Settings::Order;
  if (text.starts_with("seed:")) {
    settings.order = Order::seeded;
    settings.random.seed(number(text.substr(5), "RETORT_STANDIN_ORDER"));
  } else if (text == "late" || text == "others_first" || text == "early") {
    settings.order = text == "late" ? Order::late : text == "early" ? Order::early : Order::others_first;
  } else {
    finding("RETORT_STANDIN_ORDER: \"{}\" is none of late, others_first, early, seed:N", text);
  }
}

std::string_view cut(std::string_view& text, char separator) {
  const auto at = text.find(separator);
  const std::string_view first = text.substr(0, at);
  text.remove_prefix(at == text.npos ? text.size() : at + 1);
  return first;
}

void read_failures(std::string_view text) {
  while (!text.empty()) {
    std::string_view one = cut(text, ',');
    const std::string name(cut(one, ':'));
    const std::uint64_t nth = number(cut(one, ':'), "RETORT_STANDIN_FAIL");
    fail_calls(name, static_cast<std::int64_t>(nth),
               one.empty() ? 1 : static_cast<std::int64_t>(number(one, "RETORT_STANDIN_FAIL")));
  }
}

void print_statistics() {
  const std::scoped_lock lock(mutex());
  std::size_t n = 0;
  for (const GraphCounts& graph : all_graphs()) {
    fmt::print(
        stderr,
        "standin: graph {}: {} kernels, {} library calls, {} copies, {} fills, {} allocations, {} frees; library "
        "calls and copies touch {} bytes, kernels at most {}\n",
        ++n, graph.kernels, graph.library_calls, graph.copies, graph.fills, graph.allocations, graph.frees,
        graph.library_bytes, graph.kernel_bytes);
  }
  std::int64_t all = 0;
  for (const auto& [name, count] : calls()) {
    fmt::print(stderr, "standin: {} calls of {}\n", count, name);
    all += count;
  }
  fmt::print(stderr, "standin: {} calls of all\n", all);
}

void report_leaks() {
  const Left now = left();
  if (now.allocations + now.streams + now.graphs == 0) return;
  fmt::print(stderr, "standin: left at the end: {} allocations, {} streams, {} graphs\n", now.allocations, now.streams,
             now.graphs);
  std::fflush(nullptr);
  _exit(kLeakExit);
}

}  // namespace

Settings& settings() {
  static Settings* const instance = [] {
    auto* const made = new Settings;
    if (const auto text = environment("RETORT_STANDIN_ORDER"); !text.empty()) set_order(*made, text);
    if (const auto text = environment("RETORT_STANDIN_MEMORY"); !text.empty()) {
      made->memory = number(text, "RETORT_STANDIN_MEMORY");
    }
    if (const auto text = environment("RETORT_STANDIN_MULTIPROCESSORS"); !text.empty()) {
      made->multiprocessors = static_cast<int>(number(text, "RETORT_STANDIN_MULTIPROCESSORS"));
    }
    made->all_guards = environment("RETORT_STANDIN_GUARDS") == "all";
    read_failures(environment("RETORT_STANDIN_FAIL"));
    // Registered last to first: a leak ends the process there and then.
    if (environment("RETORT_STANDIN_LEAKS") == "1") std::atexit(report_leaks);
    if (environment("RETORT_STANDIN_STATS") == "1") std::atexit(print_statistics);
    return made;
  }();
  return *instance;
}

void set_order(const std::string& text) {
  const std::scoped_lock lock(mutex());
  set_order(settings(), text);
}

void set_memory(std::size_t bytes) {
  const std::scoped_lock lock(mutex());
  settings().memory = bytes;
}

}  // namespace retort::standin
