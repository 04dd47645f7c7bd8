// The stand-in device from inside: what is queued, where, and what is ordered before what. standin.h says what it is
// for. One mutex guards all of it; call() takes it for every function of CUDA.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "tests/device/work.h"

namespace retort::standin {

// A place in the order: the `count`-th piece of work of the line `slot`. A line is a stream, or a stream's part in a
// recording or in its replays.
struct Position {
  std::size_t slot = 0;
  std::uint64_t count = 0;
};

// What is ordered before something: of each line, how much (Lamport's and Mattern's vector clocks).
class Clock {
 public:
  bool covers(Position at) const { return at.slot < counts_.size() && counts_[at.slot] >= at.count; }
  void raise(Position at);
  void join(const Clock& other);

 private:
  std::vector<std::uint64_t> counts_;
};

enum class Kind : std::uint8_t { marker, kernel, library, copy, fill, allocation, free };

// Memory that work touches. Of a kernel's pointer only the first byte is known to be used, so `bytes` is 0 there.
struct Use {
  enum class Mode : std::uint8_t { unknown, read, write };
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  Mode mode = Mode::unknown;
};

struct Operation {
  Kind kind = Kind::marker;
  std::string what;
  std::vector<Use> uses = {};
  std::function<void()> run = {};
};

struct Allocation;
struct Stream;
struct Capture;

struct Work {
  Kind kind = Kind::marker;
  std::string what;
  std::function<void()> run;
  Stream* stream = nullptr;
  Position at;
  Clock clock;                                       // of what is ordered before it, itself included
  std::vector<std::shared_ptr<Work>> after;          // of other lines; dropped when done
  std::vector<std::shared_ptr<Allocation>> touched;  // whose guards are looked at when it has run
  std::uint64_t issue = 0;
  double time = 0;  // when it was done: pieces of work that its stream has done
  bool done = false;
};

// A stream, or a line of a graph's replays.
struct Stream {
  std::string name;
  std::size_t slot = 0;
  bool legacy = false, blocking = false, replays = false, destroyed = false;
  std::uint64_t issued = 0, done = 0;
  std::deque<std::shared_ptr<Work>> queue;
  std::shared_ptr<Work> last;
  Clock clock;
  Capture* capture = nullptr;
  std::size_t lane = 0;  // of the capture
};

// --- calls ---------------------------------------------------------------------------------------------------------

// Thrown inside call() to give a status back.
struct Refusal {
  cudaError_t status;
};
[[noreturn]] inline void refuse(cudaError_t status) {
  throw Refusal{status};
}

// Ends the process: one line, exit code kFindingExit.
[[noreturn]] void stop_with_finding(const std::string& text);
template <typename... Args>
[[noreturn]] void finding(fmt::format_string<Args...> format, Args&&... args) {
  stop_with_finding(fmt::format(format, std::forward<Args>(args)...));
}

std::recursive_mutex& mutex();
// Executes a call of CUDA: counts it, fails it where that is asked for, and remembers its error.
cudaError_t call(const char* name, const std::function<void()>& body);

// --- streams and execution -----------------------------------------------------------------------------------------

Stream& stream_of(cudaStream_t handle);  // a finding where it does not exist (any more)
cudaStream_t handle_of(const Stream& stream);
Stream& new_stream(const std::string& name);
// All that ever were: those of graphs and those destroyed, too.
const std::vector<std::unique_ptr<Stream>>& all_streams();
// True where `stream` is the legacy stream and `other` is ordered with it.
bool ordered_by_legacy(const Stream& stream, const Stream& other);

// Next on `stream`, with the clock that it will have; queue() makes it so. Not for captured streams.
std::shared_ptr<Work> next_work(Stream& stream, Operation operation, std::vector<std::shared_ptr<Work>> after = {});
void queue(const std::shared_ptr<Work>& work);
std::shared_ptr<Work> push(Stream& stream, Operation operation, std::vector<std::shared_ptr<Work>> after = {});
// Queues or records, whichever the stream is at.
void submit(Stream& stream, Operation operation);

// Executes `work` and what it needs. The host knows that only after host_waited_for().
void run_until(const std::shared_ptr<Work>& work);
void host_waited_for(const Clock& clock);
void synchronize(Stream& stream);
void synchronize_all();

// What cudaMemcpyAsync and its kin know of a host pointer (copies.cpp).
bool is_pinned(const void* host);
std::size_t pinned_count();

void forget_stream(Stream& stream);  // given back by the program; what is queued still runs

struct Settings {
  enum class Order : std::uint8_t { late, others_first, early, seeded };
  Order order = Order::late;
  std::mt19937_64 random;
  std::size_t memory = std::size_t{80} << 30;
  int multiprocessors = 2;
  bool all_guards = false;
};
Settings& settings();

}  // namespace retort::standin
