// Graphs: made of a capture, launched as its work on lines of their own, one a stream that took part.
#include <algorithm>
#include <utility>

#include "tests/device/capture.h"

namespace retort::standin {
namespace {

struct Executable {
  std::shared_ptr<Graph> graph;
  bool frees_by_itself = false;
  bool has_memory = false;
  std::vector<Stream*> lines;
  std::shared_ptr<Work> last;                     // the end of its last launch
  std::vector<std::shared_ptr<Allocation>> left;  // allocations that the last launch did not free
};

struct State {
  std::size_t graphs = 0, used = 0, used_high = 0, held = 0, held_high = 0;
  GraphCounts last;
  std::vector<GraphCounts> all;
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

Executable& executable_of(cudaGraphExec_t handle) {
  return *reinterpret_cast<Executable*>(handle);
}

// The memory that a graph's allocations need, from its first upload or launch until it is destroyed. The device's
// memory of graphs destroyed before serves again.
void take_memory(Executable& exec) {
  if (exec.has_memory) return;
  State& s = state();
  const std::size_t bytes = exec.graph->footprint();
  if (s.used + bytes > s.held) {
    reserve(s.used + bytes - s.held);
    s.held = s.used + bytes;
  }
  s.used += bytes;
  s.used_high = std::max(s.used_high, s.used);
  s.held_high = std::max(s.held_high, s.held);
  exec.has_memory = true;
}

void free_what_is_left(Executable& exec, Stream& stream) {
  std::erase_if(exec.left, [](const auto& allocation) {  // what the program freed
    return find_allocation(allocation->block->data) != allocation;
  });
  if (!exec.left.empty() && !exec.frees_by_itself) refuse(cudaErrorInvalidValue);
  for (const auto& allocation : std::exchange(exec.left, {})) {
    const auto work =
        next_work(stream, {.kind = Kind::free, .what = "the free of a graph's memory at its next launch"});
    end_life(allocation, {work->at, work->clock, work->what, stream.name});
    set_free(*work, allocation);
    queue(work);
  }
}

void launch_allocation(Executable& exec, const Node& node, Work& work) {
  const auto allocation = bring_to_life(node.block, node.bytes, {work.at, work.clock, work.what, work.stream->name});
  allocation->of_graph = true;
  set_allocation(work, allocation);
  exec.left.push_back(allocation);
}

void launch_free(Executable& exec, const Node& node, Work& work) {
  const auto allocation = find_allocation(node.block->data);
  if (allocation == nullptr) finding("{} in a graph: freed before", work.what);
  end_life(allocation, {work.at, work.clock, work.what, work.stream->name});
  set_free(work, allocation);
  std::erase(exec.left, allocation);
}

void launch(Executable& exec, Stream& stream) {
  take_memory(exec);
  free_what_is_left(exec, stream);
  std::vector<std::shared_ptr<Work>> before, works;
  if (exec.last) before.push_back(exec.last);  // cudaGraphLaunch: ordered behind the previous launch of this graph
  const auto begin = push(stream, {.what = "the beginning of cudaGraphLaunch"}, before);
  std::vector<bool> begun(exec.lines.size(), false);
  for (const Node& node : exec.graph->nodes) {
    std::vector<std::shared_ptr<Work>> after;
    for (const std::size_t other : node.after) after.push_back(works[other]);
    if (!begun[node.lane]) after.push_back(begin);
    begun[node.lane] = true;
    const auto work = next_work(*exec.lines[node.lane], node.operation, after);
    if (node.operation.kind == Kind::allocation) launch_allocation(exec, node, *work);
    if (node.operation.kind == Kind::free) launch_free(exec, node, *work);
    queue(work);
    works.push_back(work);
  }
  std::vector<std::shared_ptr<Work>> ends;
  for (std::size_t i = 0; i < exec.lines.size(); ++i) {
    if (begun[i]) ends.push_back(exec.lines[i]->last);
  }
  exec.last = push(stream, {.what = "the end of cudaGraphLaunch"}, ends);
}

std::size_t& attribute(cudaGraphMemAttributeType name) {
  State& s = state();
  switch (name) {
    case cudaGraphMemAttrUsedMemCurrent:
      return s.used;
    case cudaGraphMemAttrUsedMemHigh:
      return s.used_high;
    case cudaGraphMemAttrReservedMemCurrent:
      return s.held;
    case cudaGraphMemAttrReservedMemHigh:
      return s.held_high;
  }
  refuse(cudaErrorInvalidValue);
}

}  // namespace

std::size_t Graph::footprint() const {
  std::size_t bytes = 0;
  for (const auto& block : blocks) bytes += block->capacity;
  return bytes;
}

void graph_made() {
  ++state().graphs;
}
std::size_t graph_count() {
  return state().graphs;
}
GraphCounts last_graph() {
  const std::scoped_lock lock(mutex());
  return state().last;
}
const std::vector<GraphCounts>& all_graphs() {
  return state().all;
}

}  // namespace retort::standin

using namespace retort::standin;

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call("cudaGraphDestroy", [&] {
    delete reinterpret_cast<std::shared_ptr<Graph>*>(graph);
    --state().graphs;
  });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t handle, unsigned long long flags) {
  return call("cudaGraphInstantiateWithFlags", [&] {
    const std::shared_ptr<Graph>& graph = *reinterpret_cast<std::shared_ptr<Graph>*>(handle);
    // Programming guide, "Graph Memory Nodes": such a graph has one executable at a time.
    if (!graph->blocks.empty() && graph->executables > 0) refuse(cudaErrorNotSupported);
    if (graph->footprint() > settings().memory) refuse(cudaErrorMemoryAllocation);
    auto made = std::make_unique<Executable>();
    made->graph = graph;
    made->frees_by_itself = (flags & cudaGraphInstantiateFlagAutoFreeOnLaunch) != 0;
    for (std::size_t i = 0; i < graph->lanes.size(); ++i) {
      Stream& line = new_stream(fmt::format("the graph of {}", graph->lanes[i]));
      line.replays = true;
      line.lane = i;
      made->lines.push_back(&line);
    }
    ++graph->executables;
    state().last = graph->counts;
    state().all.push_back(graph->counts);
    *exec = reinterpret_cast<cudaGraphExec_t>(made.release());
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return call("cudaGraphUpload", [&] {
    if (stream_of(stream).capture != nullptr) refuse(cudaErrorStreamCaptureUnsupported);
    take_memory(executable_of(exec));
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  return call("cudaGraphLaunch", [&] {
    Stream& stream = stream_of(handle);
    check_legacy_use(stream);
    if (stream.capture != nullptr) {  // a graph within a graph: not modelled
      invalidate_and_refuse(*stream.capture, cudaErrorStreamCaptureUnsupported);
    }
    launch(executable_of(exec), stream);
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return call("cudaGraphExecDestroy", [&] {
    Executable& exec = executable_of(handle);
    if (exec.last) run_until(exec.last);
    for (Stream* const line : exec.lines) {
      line->last.reset();
      forget_stream(*line);
    }
    --exec.graph->executables;
    if (exec.has_memory) state().used -= exec.graph->footprint();
    delete &exec;
  });
}

cudaError_t cudaDeviceGetGraphMemAttribute(int, cudaGraphMemAttributeType name, void* value) {
  return call("cudaDeviceGetGraphMemAttribute", [&] { *static_cast<std::uint64_t*>(value) = attribute(name); });
}

cudaError_t cudaDeviceSetGraphMemAttribute(int, cudaGraphMemAttributeType name, void* value) {
  return call("cudaDeviceSetGraphMemAttribute", [&] {
    const bool high = name == cudaGraphMemAttrUsedMemHigh || name == cudaGraphMemAttrReservedMemHigh;
    // "Only high watermarks may be set, and only to 0"; they go on from what is current.
    if (!high || *static_cast<std::uint64_t*>(value) != 0) refuse(cudaErrorInvalidValue);
    attribute(name) = name == cudaGraphMemAttrUsedMemHigh ? state().used : state().held;
  });
}

cudaError_t cudaDeviceGraphMemTrim(int) {
  return call("cudaDeviceGraphMemTrim", [&] {
    unreserve(state().held - state().used);
    state().held = state().used;
  });
}
