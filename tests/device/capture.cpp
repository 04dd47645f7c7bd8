#include "tests/device/capture.h"

#include <algorithm>
#include <numeric>

namespace retort::standin {
namespace {

struct State {
  std::vector<std::unique_ptr<Capture>> active;
  std::uint64_t begun = 0;
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

thread_local cudaStreamCaptureMode t_mode = cudaStreamCaptureModeGlobal;

Capture& valid_capture(Stream& stream) {
  Capture& capture = *stream.capture;
  if (!capture.valid) refuse(cudaErrorStreamCaptureInvalidated);
  return capture;
}

void end(Capture& capture) {
  for (const Lane& lane : capture.lanes) {
    if (lane.stream->capture == &capture) lane.stream->capture = nullptr;
  }
  const Clock all =
      std::accumulate(capture.clocks.begin(), capture.clocks.end(), Clock(), [](Clock sum, const Clock& c) {
        sum.join(c);
        return sum;
      });
  const std::string what = "cudaStreamEndCapture";
  for (const auto& allocation : capture.live) end_life(allocation, {{}, all, what, capture.origin->name, &capture});
  std::erase_if(state().active, [&](const auto& other) { return other.get() == &capture; });
}

// Whether work of some stream is not ordered before the origin's end.
bool is_joined(const Capture& capture) {
  const Clock& origin = capture.lanes.front().clock;
  for (std::size_t i = 1; i < capture.lanes.size(); ++i) {
    if (capture.lanes[i].last_work > 0 && !origin.covers({i, capture.lanes[i].last_work})) return false;
  }
  return true;
}

void count(Graph& graph, const Operation& operation) {
  GraphCounts& counts = graph.counts;
  const bool kernel = operation.kind == Kind::kernel;
  for (const Use& use : operation.uses) {
    std::int64_t bytes = static_cast<std::int64_t>(use.bytes);
    if (const auto allocation = find_allocation(use.data); kernel && allocation != nullptr) {
      bytes = allocation->block->data + allocation->bytes - use.data;
    }
    (kernel ? counts.kernel_bytes : counts.library_bytes) += bytes;
  }
  switch (operation.kind) {
    case Kind::marker:
      break;
    case Kind::kernel:
      ++counts.kernels;
      break;
    case Kind::library:
      ++counts.library_calls;
      break;
    case Kind::copy:
      ++counts.copies;
      break;
    case Kind::fill:
      ++counts.fills;
      break;
    case Kind::allocation:
      ++counts.allocations;
      break;
    case Kind::free:
      ++counts.frees;
      break;
  }
}

// The number that the next node of this stream will have, and its clock.
std::pair<Position, Clock> next_place(const Stream& stream, const std::vector<std::size_t>& after) {
  const Lane& lane = stream.capture->lanes[stream.lane];
  const Position at{stream.lane, lane.count + 1};
  Clock clock = lane.clock;
  for (const std::size_t node : after) clock.join(stream.capture->clocks[node]);
  clock.raise(at);
  return {at, clock};
}

std::size_t add_node(Stream& stream, Node node) {
  Capture& capture = valid_capture(stream);
  const auto [at, clock] = next_place(stream, node.after);
  check_uses(Toucher{at, clock, node.operation.what, stream.name, &capture}, node.operation.uses);
  Lane& lane = capture.lanes[stream.lane];
  lane.count = at.count;
  lane.clock = clock;
  if (node.operation.kind != Kind::marker) lane.last_work = at.count;
  count(*capture.graph, node.operation);
  node.lane = stream.lane;
  capture.graph->nodes.push_back(std::move(node));
  capture.clocks.push_back(clock);
  return capture.clocks.size() - 1;
}

void add_lane(Capture& capture, Stream& stream) {
  stream.capture = &capture;
  stream.lane = capture.lanes.size();
  capture.lanes.push_back({&stream, {}, 0, 0});
  capture.graph->lanes.push_back(stream.name);
}

}  // namespace

Capture* find_capture(std::uint64_t id) {
  const auto& active = state().active;
  const auto found = std::find_if(active.begin(), active.end(), [&](const auto& c) { return c->id == id; });
  return found == active.end() ? nullptr : found->get();
}

std::size_t record(Stream& stream, Operation operation, std::vector<std::size_t> after) {
  return add_node(stream, {std::move(operation), 0, std::move(after), nullptr, 0});
}

void* record_allocation(Stream& stream, std::size_t bytes) {
  Capture& capture = valid_capture(stream);
  const auto [at, clock] = next_place(stream, {});
  std::shared_ptr<Block> block = capture.free_blocks.take(bytes, clock);
  if (block == nullptr) {
    if (capacity_for(bytes) > settings().memory) invalidate_and_refuse(capture, cudaErrorMemoryAllocation);
    block = make_block(bytes);
    capture.graph->blocks.push_back(block);
  }
  const std::string what = fmt::format("an allocation of {} bytes", bytes);
  capture.live.push_back(bring_to_life(block, bytes, {at, clock, what, stream.name, &capture}));
  capture.live.back()->of_graph = true;
  add_node(stream, {{.kind = Kind::allocation, .what = what}, 0, {}, block, bytes});
  return block->data;
}

void record_free(Stream& stream, void* data) {
  Capture& capture = valid_capture(stream);
  const auto found = std::find_if(capture.live.begin(), capture.live.end(),
                                  [&](const auto& allocation) { return allocation->block->data == data; });
  // cudaGraphAddMemFreeNode: only what an allocation of the same graph gave, and once.
  if (found == capture.live.end()) invalidate_and_refuse(capture, cudaErrorInvalidValue);
  const std::shared_ptr<Allocation> allocation = *found;
  const auto [at, clock] = next_place(stream, {});
  const std::string what = fmt::format("the free of {} bytes", allocation->bytes);
  end_life(allocation, {at, clock, what, stream.name, &capture});
  capture.live.erase(found);
  allocation->block->freed = at;
  capture.free_blocks.put(allocation->block);
  add_node(stream, {{.kind = Kind::free, .what = what}, 0, {}, allocation->block, allocation->bytes});
}

void join_capture(Stream& stream, Capture& capture, std::size_t after) {
  if (!capture.valid) refuse(cudaErrorStreamCaptureInvalidated);
  if (stream.capture == nullptr) {
    if (stream.legacy) invalidate_and_refuse(capture, cudaErrorStreamCaptureImplicit);
    add_lane(capture, stream);
  } else if (stream.capture != &capture) {
    stream.capture->valid = false;
    invalidate_and_refuse(capture, cudaErrorStreamCaptureMerge);
  }
  record(stream, {.what = "cudaStreamWaitEvent"}, {after});
}

void invalidate_and_refuse(Capture& capture, cudaError_t status) {
  capture.valid = false;
  refuse(status);
}

void check_legacy_use(const Stream& stream) {
  if (!stream.legacy) return;
  for (const auto& capture : state().active) {
    for (const Lane& lane : capture->lanes) {
      if (lane.stream->blocking) invalidate_and_refuse(*capture, cudaErrorStreamCaptureImplicit);
    }
  }
}

void check_unsafe_call() {
  if (t_mode == cudaStreamCaptureModeRelaxed) return;
  for (const auto& capture : state().active) {
    const bool own = capture->thread == std::this_thread::get_id() && capture->mode != cudaStreamCaptureModeRelaxed;
    const bool others = t_mode == cudaStreamCaptureModeGlobal && capture->mode == cudaStreamCaptureModeGlobal;
    if (own || others) invalidate_and_refuse(*capture, cudaErrorStreamCaptureUnsupported);
  }
}

void check_no_capture() {
  if (state().active.empty()) return;
  for (const auto& capture : state().active) capture->valid = false;
  refuse(cudaErrorStreamCaptureUnsupported);
}

void forget_in_capture(Stream& stream) {
  if (stream.capture == nullptr) return;
  Capture& capture = *stream.capture;
  capture.valid = false;
  if (capture.origin == &stream) end(capture);
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return call("cudaThreadExchangeStreamCaptureMode", [&] { std::swap(t_mode, *mode); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCapture", [&] {
    Stream& stream = stream_of(handle);
    if (stream.legacy) refuse(cudaErrorStreamCaptureUnsupported);
    if (stream.capture != nullptr) refuse(cudaErrorIllegalState);
    auto capture = std::make_unique<Capture>();
    capture->id = ++state().begun;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->origin = &stream;
    add_lane(*capture, stream);
    state().active.push_back(std::move(capture));
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return call("cudaStreamEndCapture", [&] {
    *graph = nullptr;
    Stream& stream = stream_of(handle);
    if (stream.capture == nullptr) refuse(cudaErrorIllegalState);
    Capture& capture = *stream.capture;
    if (capture.origin != &stream) invalidate_and_refuse(capture, cudaErrorStreamCaptureUnmatched);
    if (capture.mode != cudaStreamCaptureModeRelaxed && capture.thread != std::this_thread::get_id()) {
      invalidate_and_refuse(capture, cudaErrorStreamCaptureWrongThread);
    }
    const bool valid = capture.valid, joined = is_joined(capture);
    const std::shared_ptr<Graph> recorded = capture.graph;
    end(capture);
    if (!valid) refuse(cudaErrorStreamCaptureInvalidated);
    if (!joined) refuse(cudaErrorStreamCaptureUnjoined);
    *graph = reinterpret_cast<cudaGraph_t>(new std::shared_ptr<Graph>(recorded));
    graph_made();
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call("cudaStreamIsCapturing", [&] {
    const Stream& stream = stream_of(handle);
    check_legacy_use(stream);
    *status = stream.capture == nullptr ? cudaStreamCaptureStatusNone
              : stream.capture->valid   ? cudaStreamCaptureStatusActive
                                        : cudaStreamCaptureStatusInvalidated;
  });
}
