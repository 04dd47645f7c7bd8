// Recordings: streams that are being captured, and the graphs that come of it.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/device/device.h"
#include "tests/device/memory.h"
#include "tests/device/standin.h"

namespace retort::standin {

struct Node {
  Operation operation;
  std::size_t lane = 0;
  std::vector<std::size_t> after;  // nodes of other lanes; that before it in its own goes without saying
  std::shared_ptr<Block> block;    // of an allocation or a free
  std::size_t bytes = 0;
};

struct Graph {
  std::vector<Node> nodes;
  std::vector<std::string> lanes;  // names of the streams that took part
  std::vector<std::shared_ptr<Block>> blocks;
  GraphCounts counts;
  int executables = 0;

  std::size_t footprint() const;
};

// A stream's part in a recording. Clocks of a recording count lanes, not streams.
struct Lane {
  Stream* stream = nullptr;
  Clock clock;
  std::uint64_t count = 0, last_work = 0;  // the last that is no marker
};

struct Capture {
  std::uint64_t id = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  Stream* origin = nullptr;
  bool valid = true;
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  std::vector<Clock> clocks;  // of the nodes
  std::vector<Lane> lanes;
  FreeBlocks free_blocks;
  std::vector<std::shared_ptr<Allocation>> live;
};

// The capture with this number, or null where it has ended.
Capture* find_capture(std::uint64_t id);

// Records an operation on a stream that is being captured; the node's number. Refuses where the capture is invalid.
std::size_t record(Stream& stream, Operation operation, std::vector<std::size_t> after = {});
void* record_allocation(Stream& stream, std::size_t bytes);
void record_free(Stream& stream, void* data);
// `stream` takes part in `capture` from the node `after` on.
void join_capture(Stream& stream, Capture& capture, std::size_t after);

[[noreturn]] void invalidate_and_refuse(Capture& capture, cudaError_t status);
// Programming guide, "Prohibited and Unhandled Operations": while a stream that is ordered with the legacy stream is being
// captured, the legacy stream may not be used.
void check_legacy_use(const Stream& stream);
// cudaThreadExchangeStreamCaptureMode's "potentially unsafe API calls".
void check_unsafe_call();
// A device may not be waited for while one of its streams is being captured.
void check_no_capture();
// A stream that is destroyed while it is being captured.
void forget_in_capture(Stream& stream);

void graph_made();
std::size_t graph_count();                     // not yet destroyed
const std::vector<GraphCounts>& all_graphs();  // ever instantiated

}  // namespace retort::standin
