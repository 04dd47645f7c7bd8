// Loops over threads. Whatever is summed is summed in pieces whose cut depends on the shape alone and merged in
// their order, so results are the same bit for bit from run to run and for every number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace retort::kernels::cpu {

// Below this many element operations a parallel region costs more than it saves.
inline constexpr std::int64_t kSerialWork = 32768;

// body(begin, end) on disjoint contiguous ranges that cover [0, count). Each thread gets the same range for the same
// count, so that what one kernel leaves in a core's cache the next finds there. Either one thread runs or all do: the
// OpenMP run-time ends and starts threads when the team's size changes.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t work_per_item, const Body& body) {
  if (count <= 0) return;
  if (count == 1 || count * work_per_item < kSerialWork || omp_in_parallel() || omp_get_max_threads() == 1) {
    body(std::int64_t{0}, count);
    return;
  }
#pragma omp parallel
  {
    const std::int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    const std::int64_t begin = count * me / team, end = count * (me + 1) / team;
    if (begin < end) body(begin, end);
  }
}

// body(begin, end) over elements; ranges begin at multiples of 1024, so threads do not share cache lines.
template <typename Body>
void parallel_elements(std::int64_t count, const Body& body) {
  constexpr std::int64_t kBlock = 1024;
  parallel_for((count + kBlock - 1) / kBlock, kBlock,
               [&](std::int64_t begin, std::int64_t end) { body(begin * kBlock, std::min(count, end * kBlock)); });
}

// Sum over chunks of chunk(begin, end), which returns the sum of its own elements. In f64 and in a fixed order.
template <typename Chunk>
double ordered_sum(std::int64_t count, const Chunk& chunk) {
  constexpr std::int64_t kChunk = 8192;
  const std::int64_t chunks = (count + kChunk - 1) / kChunk;
  const auto partial = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(chunks));
  parallel_for(chunks, kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) partial[i] = chunk(i * kChunk, std::min(count, (i + 1) * kChunk));
  });
  double total = 0;
  for (std::int64_t i = 0; i < chunks; ++i) total += partial[i];
  return total;
}

}  // namespace retort::kernels::cpu
