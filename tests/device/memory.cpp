#include "tests/device/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/device/capture.h"
#include "tests/simt/heap.h"

namespace retort::standin {
namespace {

constexpr std::size_t kAlignment = 256;  // what CUDA's allocations have at least
constexpr std::size_t kGuard = 256;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kArenaBytes = std::size_t{1} << 40;

// Addresses only; pages come when they are touched.
struct Arena {
  std::byte* begin = nullptr;
  std::size_t used = 0;
  std::multimap<std::size_t, std::byte*> returned;  // by size, with guards

  Arena() {
    void* const at =
        mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) finding("no addresses for the device's memory");
    begin = static_cast<std::byte*>(at);
  }
  std::byte* take(std::size_t bytes) {
    if (const auto found = returned.find(bytes); found != returned.end()) {
      std::byte* const at = found->second;
      returned.erase(found);
      return at;
    }
    if (bytes > kArenaBytes - used) finding("the addresses of the device's memory are used up");
    return begin + std::exchange(used, used + bytes);
  }
  void give(std::byte* at, std::size_t bytes) {
    simt::lift_guard(at, bytes);
    // The whole pages of it; the others hold a part of a neighbour.
    const std::size_t first = (static_cast<std::size_t>(at - begin) + kPage - 1) / kPage * kPage;
    const std::size_t last = (static_cast<std::size_t>(at - begin) + bytes) / kPage * kPage;
    if (first < last) madvise(begin + first, last - first, MADV_DONTNEED);
    returned.emplace(bytes, at);
  }
};

struct State {
  Arena arena;
  std::map<const std::byte*, std::shared_ptr<Allocation>> live;
  std::size_t reserved = 0;
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

std::string describe(const Allocation& allocation) {
  return fmt::format("an allocation of {} bytes{} made on {}", allocation.bytes,
                     allocation.of_graph ? " of a graph" : "", allocation.from);
}

void check_order(Allocation& allocation, const Toucher& by, const Use& use) {
  if (!by.clock.covers(allocation.birth)) {
    finding("{} on {}: uses {} without waiting for the allocation", by.what, by.stream, describe(allocation));
  }
  allocation.uses[by.at.slot] = {by.at.count, by.what, by.stream};
  if (use.mode == Use::Mode::unknown) return;
  const bool written = use.mode == Use::Mode::write;
  const std::byte *begin = use.data, *end = begin + std::max<std::size_t>(use.bytes, 1);
  for (const Allocation::Access& other : allocation.accesses) {
    const bool conflict = (written || other.written) && begin < other.end && other.begin < end;
    if (!conflict || by.clock.covers(other.at)) continue;
    finding("{} on {}: {} {} that {} on {} {}, and neither waits for the other", by.what, by.stream,
            written ? "writes" : "reads", describe(allocation), other.what, other.stream,
            other.written ? "writes" : "reads");
  }
  std::erase_if(allocation.accesses, [&](const Allocation::Access& other) {
    return begin <= other.begin && other.end <= end && (written || !other.written) && by.clock.covers(other.at);
  });
  allocation.accesses.push_back({by.at, begin, end, written, by.what, by.stream});
}

void prepare(Allocation& allocation) {
  Block& block = *allocation.block;
  if (block.fresh) std::memset(block.data, simt::kPoison, block.capacity);
  block.fresh = false;
  block.settled = true;
  simt::write_guard(block.data - kGuard, kGuard);
  simt::write_guard(block.data + allocation.bytes, block.capacity - allocation.bytes + kGuard);
  allocation.prepared = true;
}

void poison(const Allocation& allocation) {
  Block& block = *allocation.block;
  simt::lift_guard(block.data + allocation.bytes, block.capacity - allocation.bytes);
  std::memset(block.data, simt::kPoison, block.capacity);
  block.fresh = false;
  block.settled = true;
}

}  // namespace

std::size_t capacity_for(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::shared_ptr<Block> make_block(std::size_t bytes) {
  const std::size_t capacity = capacity_for(bytes), whole = capacity + 2 * kGuard;
  std::byte* const at = state().arena.take(whole);
  return {new Block{at + kGuard, capacity, true, true, {}}, [at, whole](Block* block) {
            state().arena.give(at, whole);
            delete block;
          }};
}

std::shared_ptr<Block> FreeBlocks::take(std::size_t bytes, const Clock& clock) {
  const std::size_t capacity = capacity_for(bytes);
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
    const bool fits = (*block)->capacity >= capacity && (*block)->capacity <= 4 * capacity;
    if (!fits || !clock.covers((*block)->freed)) continue;
    const std::shared_ptr<Block> found = *block;
    blocks_.erase(std::next(block).base());
    return found;
  }
  return nullptr;
}

std::size_t FreeBlocks::trim(std::size_t held, std::size_t keep) {
  std::size_t dropped = 0;
  std::erase_if(blocks_, [&](const auto& block) {
    if (held - dropped <= keep || !block->settled) return false;
    dropped += block->capacity;
    return true;
  });
  return dropped;
}

bool is_device_address(const void* address) {
  const auto* const at = static_cast<const std::byte*>(address);
  return at >= state().arena.begin && at < state().arena.begin + kArenaBytes;
}

std::shared_ptr<Allocation> find_allocation(const void* data) {
  const auto* const at = static_cast<const std::byte*>(data);
  const auto next = state().live.upper_bound(at);
  if (next == state().live.begin()) return nullptr;
  const auto& [begin, allocation] = *std::prev(next);
  return at <= begin + allocation->bytes ? allocation : nullptr;
}

std::size_t live_allocations() {
  return static_cast<std::size_t>(std::count_if(state().live.begin(), state().live.end(),
                                                [](const auto& entry) { return !entry.second->of_graph; }));
}

std::shared_ptr<Allocation> bring_to_life(std::shared_ptr<Block> block, std::size_t bytes, const Toucher& by) {
  auto allocation = std::make_shared<Allocation>();
  allocation->block = std::move(block);
  allocation->bytes = bytes;
  allocation->from = by.stream;
  allocation->birth = by.at;
  allocation->capture = by.capture;
  const std::byte* const data = allocation->block->data;
  if (!state().live.emplace(data, allocation).second)
    finding("{} on {}: memory is handed out twice", by.what, by.stream);
  return allocation;
}

void end_life(const std::shared_ptr<Allocation>& allocation, const Toucher& by) {
  if (!by.clock.covers(allocation->birth)) {
    finding("{} on {}: frees {} without waiting for the allocation", by.what, by.stream, describe(*allocation));
  }
  for (const auto& [slot, use] : allocation->uses) {
    if (by.clock.covers({slot, use.count})) continue;
    finding("{} on {}: frees {} without waiting for its use by {} on {}", by.what, by.stream, describe(*allocation),
            use.what, use.stream);
  }
  state().live.erase(allocation->block->data);
}

std::vector<std::shared_ptr<Allocation>> check_uses(const Toucher& by, const std::vector<Use>& uses) {
  std::vector<std::shared_ptr<Allocation>> touched;
  for (const Use& use : uses) {
    if (use.data == nullptr) {
      if (use.bytes > 0) finding("{} on {}: a null pointer with {} bytes", by.what, by.stream, use.bytes);
      continue;
    }
    if (!is_device_address(use.data)) {
      finding("{} on {}: {} points into host memory", by.what, by.stream, static_cast<const void*>(use.data));
    }
    const std::shared_ptr<Allocation> allocation = find_allocation(use.data);
    if (allocation == nullptr) {
      finding("{} on {}: uses memory that is not allocated (never, or freed)", by.what, by.stream);
    }
    const std::byte* const end = allocation->block->data + allocation->bytes;
    if (use.data + use.bytes > end) {
      finding("{} on {}: uses {} bytes from byte {} of {}", by.what, by.stream, use.bytes,
              use.data - allocation->block->data, describe(*allocation));
    }
    touched.push_back(allocation);
    if (use.bytes == 0 && use.data == end) continue;  // an empty array behind the last element
    if (allocation->capture == by.capture) {
      check_order(*allocation, by, use);
    } else if (allocation->capture != nullptr) {
      finding("{} on {}: uses {}, which is being recorded elsewhere", by.what, by.stream, describe(*allocation));
    }  // else recorded work on memory from outside: each replay is looked at
  }
  return touched;
}

void check_uses(Work& work, const std::vector<Use>& uses) {
  work.touched = check_uses(Toucher{work.at, work.clock, work.what, work.stream->name}, uses);
}

void check_guards(const Allocation& allocation, const Work& after) {
  const Block& block = *allocation.block;
  if (!allocation.prepared) return;
  const bool before = simt::guard_is_whole(block.data - kGuard, kGuard);
  const bool behind = simt::guard_is_whole(block.data + allocation.bytes, block.capacity - allocation.bytes + kGuard);
  if (before && behind) return;
  finding("{} on {}: something wrote {} {}", after.what, after.stream->name, before ? "behind" : "before",
          describe(allocation));
}

void check_all_guards(const Work& after) {
  for (const auto& [data, allocation] : state().live) check_guards(*allocation, after);
}

void set_allocation(Work& work, const std::shared_ptr<Allocation>& allocation) {
  work.run = [allocation] { prepare(*allocation); };
}

void set_free(Work& work, const std::shared_ptr<Allocation>& allocation) {
  work.run = [allocation, &work] {
    check_guards(*allocation, work);
    poison(*allocation);
  };
}

void reserve(std::size_t bytes) {
  if (bytes > settings().memory || state().reserved > settings().memory - bytes) refuse(cudaErrorMemoryAllocation);
  state().reserved += bytes;
}
void unreserve(std::size_t bytes) {
  state().reserved -= bytes;
}
std::size_t reserved() {
  return state().reserved;
}

}  // namespace retort::standin
