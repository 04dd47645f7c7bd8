#include "tests/device/device.h"

#include <algorithm>
#include <unordered_set>

#include "tests/device/capture.h"
#include "tests/device/memory.h"
#include "tests/device/standin.h"

namespace retort::standin {
namespace {

// Never destroyed: objects in static storage give back what they hold at the very end.
struct State {
  std::vector<std::unique_ptr<Stream>> streams;
  std::unordered_set<const Stream*> handles;  // of streams that the program has
  std::uint64_t issued = 0;
  Clock host;

  State() {
    auto legacy = std::make_unique<Stream>();
    legacy->name = "the null stream";
    legacy->legacy = true;
    streams.push_back(std::move(legacy));
  }
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

bool is_ready(const Work& work) {
  return std::all_of(work.after.begin(), work.after.end(), [](const auto& other) { return other->done; });
}

// The work at the front of some stream that must run before `work` or is it.
Work& needed_next(const Work& work) {
  const Stream* stream = work.stream;
  for (;;) {
    Work& front = *stream->queue.front();
    const auto missing = std::find_if(front.after.begin(), front.after.end(), [](const auto& w) { return !w->done; });
    if (missing == front.after.end()) return front;
    stream = (*missing)->stream;
  }
}

Work& chosen_next(const Work& goal) {
  const Settings::Order order = settings().order;
  if (order == Settings::Order::late) return needed_next(goal);
  std::vector<Work*> ready;
  for (const auto& stream : state().streams) {
    if (!stream->queue.empty() && is_ready(*stream->queue.front())) ready.push_back(stream->queue.front().get());
  }
  if (order == Settings::Order::seeded) return *ready[settings().random() % ready.size()];
  if (order == Settings::Order::early) {
    return **std::min_element(ready.begin(), ready.end(), [](auto* a, auto* b) { return a->issue < b->issue; });
  }
  // The stream that is asked for goes last, and before it the first line of a replay; among others the youngest first.
  const auto rank = [&](const Work* work) {
    return std::pair(work->stream == goal.stream                        ? 2
                     : work->stream->replays && work->stream->lane == 0 ? 1
                                                                        : 0,
                     -static_cast<std::int64_t>(work->stream->slot));
  };
  return **std::min_element(ready.begin(), ready.end(), [&](auto* a, auto* b) { return rank(a) < rank(b); });
}

void execute(Work& work) {
  Stream& stream = *work.stream;
  const std::shared_ptr<Work> keep = stream.queue.front();
  stream.queue.pop_front();
  try {
    if (work.run) work.run();
  } catch (const std::exception& error) {
    finding("{} on {}: {}", work.what, stream.name, error.what());
  }
  for (const auto& allocation : work.touched) check_guards(*allocation, work);
  if (settings().all_guards) check_all_guards(work);
  work.time = static_cast<double>(++stream.done);
  work.done = true;
  work.run = nullptr;
  work.after.clear();
  work.touched.clear();
}

}  // namespace

void Clock::raise(Position at) {
  if (counts_.size() <= at.slot) counts_.resize(at.slot + 1);
  counts_[at.slot] = std::max(counts_[at.slot], at.count);
}

void Clock::join(const Clock& other) {
  if (counts_.size() < other.counts_.size()) counts_.resize(other.counts_.size());
  for (std::size_t i = 0; i < other.counts_.size(); ++i) counts_[i] = std::max(counts_[i], other.counts_[i]);
}

std::recursive_mutex& mutex() {
  static auto* const instance = new std::recursive_mutex;
  return *instance;
}

Stream& stream_of(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return *state().streams.front();
  auto* const stream = reinterpret_cast<Stream*>(handle);
  if (!state().handles.contains(stream)) finding("a stream that does not exist, or was destroyed, is used");
  return *stream;
}

cudaStream_t handle_of(const Stream& stream) {
  return stream.legacy ? nullptr : reinterpret_cast<cudaStream_t>(const_cast<Stream*>(&stream));
}

Stream& new_stream(const std::string& name) {
  State& s = state();
  auto stream = std::make_unique<Stream>();
  stream->slot = s.streams.size();
  stream->name = name.empty() ? fmt::format("stream {}", stream->slot) : name;
  s.handles.insert(stream.get());
  s.streams.push_back(std::move(stream));
  return *s.streams.back();
}

const std::vector<std::unique_ptr<Stream>>& all_streams() {
  return state().streams;
}

bool ordered_by_legacy(const Stream& stream, const Stream& other) {
  return (stream.legacy && other.blocking) || (stream.blocking && other.legacy);
}

std::shared_ptr<Work> next_work(Stream& stream, Operation operation, std::vector<std::shared_ptr<Work>> after) {
  auto work = std::make_shared<Work>();
  work->kind = operation.kind;
  work->what = std::move(operation.what);
  work->run = std::move(operation.run);
  work->stream = &stream;
  // CUDA programming guide, "Implicit synchronization": the legacy stream and every blocking stream wait for each other.
  if (stream.legacy || stream.blocking) {
    for (const auto& other : state().streams) {
      if (ordered_by_legacy(stream, *other) && other->last) after.push_back(other->last);
    }
  }
  work->clock = stream.clock;
  work->clock.join(state().host);
  for (const auto& other : after) work->clock.join(other->clock);
  std::erase_if(after, [](const auto& other) { return other->done; });
  work->after = std::move(after);
  work->at = {stream.slot, stream.issued + 1};
  work->clock.raise(work->at);
  check_uses(*work, operation.uses);
  return work;
}

void queue(const std::shared_ptr<Work>& work) {
  Stream& stream = *work->stream;
  stream.issued = work->at.count;
  stream.clock = work->clock;
  stream.last = work;
  work->issue = ++state().issued;
  stream.queue.push_back(work);
  if (settings().order == Settings::Order::early) run_until(work);
}

std::shared_ptr<Work> push(Stream& stream, Operation operation, std::vector<std::shared_ptr<Work>> after) {
  auto work = next_work(stream, std::move(operation), std::move(after));
  queue(work);
  return work;
}

void submit(Stream& stream, Operation operation) {
  check_legacy_use(stream);
  if (stream.capture != nullptr) {
    record(stream, std::move(operation));
  } else {
    push(stream, std::move(operation));
  }
}

void run_until(const std::shared_ptr<Work>& work) {
  while (!work->done) execute(chosen_next(*work));
}

void host_waited_for(const Clock& clock) {
  state().host.join(clock);
}

void synchronize(Stream& stream) {
  if (stream.last) run_until(stream.last);
  host_waited_for(stream.clock);
  release_above_threshold();
}

void synchronize_all() {
  for (std::size_t i = 0; i < state().streams.size(); ++i) {
    Stream& stream = *state().streams[i];
    if (stream.last) run_until(stream.last);
    host_waited_for(stream.clock);
  }
  release_above_threshold();
}

std::size_t queued() {
  const std::scoped_lock lock(mutex());
  std::size_t count = 0;
  for (const auto& stream : state().streams) count += stream->queue.size();
  return count;
}

void forget_stream(Stream& stream) {
  stream.destroyed = true;
  state().handles.erase(&stream);
}

}  // namespace retort::standin
