// A CUDA device that is not there: libcudart's functions, as far as the backend calls them, on the CPU. The whole
// backend (kernels/cuda), unchanged, and all programs link against it where RETORT_CUDA=STANDIN (preset `standin`).
//
// It is the worst device that CUDA's rules allow:
//  - What is queued runs when a synchronisation needs it, in a legal order of one's choice. Memory holds NaN until it
//    is written, and again when a free *executes*; a freed block is handed out next wherever that is legal.
//  - Order is also checked by itself (happens-before, with vector clocks over streams, events, recordings and the
//    host's synchronisations): a use of memory whose allocation is not ordered before it or whose free is not ordered
//    behind it, and two accesses of which one writes, without an order, are findings whatever the order was.
//  - Recordings obey CUDA's rules of stream capture; a replay is the recorded work on streams of its own, in another
//    legal order.
//  - Kernels run thread by thread (tests/simt), their arguments copied at the launch; every device pointer among them
//    must lie in live memory. Guard zones around every allocation are looked at after each piece of work.
//
// What a program must never do is a finding: one line on stderr ("standin: ..."), which names work, stream and memory,
// and exit code 86, since much of it happens where nothing can be thrown. What CUDA refuses is refused with its error.
//
// Environment, read once:
//   RETORT_STANDIN_ORDER            late (the default: nothing before it is needed), others_first (streams that were not
//                                   asked for run ahead), early (at once, when queued), seed:N (any legal order)
//   RETORT_STANDIN_MEMORY           bytes of the device; 80 GiB
//   RETORT_STANDIN_MULTIPROCESSORS  2, so that kernels' loops do go round; a real H100 has 132
//   RETORT_STANDIN_GUARDS=all       the guards of all allocations are looked at after each piece of work, not only those of
//                                   what it was given: slow, and names who wrote far outside
//   RETORT_STANDIN_FAIL             NAME:N or NAME:N:COUNT: the N-th call of a function and COUNT - 1 more fail; "all" for
//                                   NAME counts calls of every function. Several, with commas between.
//   RETORT_STANDIN_STATS=1          at exit: nodes of each recording by kind, and the calls of every function
//   RETORT_STANDIN_LEAKS=1          at exit: exit code 87 and a line where device memory, streams or graphs are left (a
//                                   backend, with its pinned memory, lives to the end)
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace retort::standin {

inline constexpr int kFindingExit = 86;
inline constexpr int kLeakExit = 87;

// In place of the environment's; `text` is what RETORT_STANDIN_ORDER would say.
void set_order(const std::string& text);
void set_memory(std::size_t bytes);
// Of calls from now on. `name` is a function's or "all".
void fail_calls(const std::string& name, std::int64_t nth, std::int64_t count = 1);
void fail_no_calls();

// How often each function was called.
std::map<std::string, std::int64_t> calls();

struct Left {
  std::size_t allocations = 0, pinned = 0, streams = 0, events = 0, graphs = 0;
  bool operator==(const Left&) const = default;
};
Left left();           // what exists now; memory of graphs apart
std::size_t queued();  // pieces of work that have not run

// The nodes of a recording. The bytes are those that library calls, copies and fills declare, and for kernels, which
// declare nothing, from each pointer to the end of its allocation: an upper bound where kernels see parts of arrays.
struct GraphCounts {
  std::int64_t kernels = 0, library_calls = 0, copies = 0, fills = 0, allocations = 0, frees = 0;
  std::int64_t library_bytes = 0, kernel_bytes = 0;
};
GraphCounts last_graph();  // of the graph instantiated last

}  // namespace retort::standin
