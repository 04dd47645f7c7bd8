// Where the memory of a recording lies: blocks of a few slabs, which are handed out again in the order in which the
// recorded streams will run. Bookkeeping alone, tested without a device: slabs come from a function, nothing here
// reads them or calls CUDA.
//
// A block freed on a stream may be handed out again there at once, and on another stream from the moment on that it has
// waited for the first one, directly or by way of others. So what a replay runs side by side never shares memory. How
// far a stream has seen the others is told by vector clocks (Fidge 1988, Mattern 1989).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace retort::kernels {

class RecordingPool {
 public:
  static constexpr std::size_t kGranularity = 512;  // of addresses and sizes

  struct Slab {
    void* data = nullptr;  // aligned to kGranularity
    std::size_t bytes = 0;
  };
  using StreamId = const void*;
  using Grow = std::function<Slab(std::size_t bytes)>;  // a new slab, of `bytes` at least

  // At the beginning all of `slabs` is free. Without `split` a slab is one block and serves its own size alone.
  RecordingPool(const std::vector<Slab>& slabs, Grow grow, bool split = true) : grow_(std::move(grow)), split_(split) {
    for (const Slab& slab : slabs) add(slab);
  }

  void* allocate(std::size_t bytes, StreamId stream);
  // False where `data` was not allocated here.
  bool deallocate(void* data, StreamId stream);
  // `waiting` will go on when all that is recorded on `on` so far has run.
  void wait(StreamId waiting, StreamId on);

  // What was allocated and not freed, with the sizes that were asked for.
  std::vector<Slab> live() const;

 private:
  // How many allocations and frees of each stream come before; a stream that is not named: none.
  using Clock = std::map<StreamId, std::uint64_t>;
  using Place = std::pair<std::size_t, std::size_t>;  // slab, offset
  struct Block {
    std::size_t bytes = 0, asked = 0;
    bool live = false;
    Clock used = {};  // what must be seen before it is used again
  };

  void add(const Slab& slab);
  bool may_use(const Block& block, StreamId stream) const;
  std::optional<Place> find(std::size_t bytes, StreamId stream) const;
  Block& take(const Place& place, std::size_t bytes);

  Grow grow_;
  bool split_;
  std::vector<Slab> slabs_;
  std::map<Place, Block> blocks_;  // they fill the slabs without gaps
  std::unordered_map<const void*, Place> live_;
  std::map<StreamId, Clock> seen_;
};

// --- definitions ----------------------------------------------------------------------------------------------------

inline void RecordingPool::add(const Slab& slab) {
  blocks_[{slabs_.size(), 0}] = {.bytes = slab.bytes / kGranularity * kGranularity};
  slabs_.push_back(slab);
}

inline bool RecordingPool::may_use(const Block& block, StreamId stream) const {
  if (block.live) return false;
  const auto seen = seen_.find(stream);
  return std::all_of(block.used.begin(), block.used.end(), [&](const auto& use) {
    if (seen == seen_.end()) return false;
    const auto known = seen->second.find(use.first);
    return known != seen->second.end() && known->second >= use.second;
  });
}

// The shortest run of neighbouring blocks that is long enough. Free blocks are joined only here, where it is known who
// asks: joined earlier, what one stream has freed would keep its neighbours from all others.
inline std::optional<RecordingPool::Place> RecordingPool::find(std::size_t bytes, StreamId stream) const {
  std::optional<Place> best;
  std::size_t best_length = 0;
  for (auto block = blocks_.begin(); block != blocks_.end();) {
    const Place first = block->first;
    std::size_t length = 0;
    for (; block != blocks_.end() && block->first.first == first.first && may_use(block->second, stream); ++block) {
      length += block->second.bytes;
    }
    if ((split_ ? length >= bytes : length == bytes) && (!best || length < best_length)) {
      best = first;
      best_length = length;
    }
    if (length == 0) ++block;
  }
  return best;
}

inline RecordingPool::Block& RecordingPool::take(const Place& place, std::size_t bytes) {
  std::size_t covered = 0;
  for (auto block = blocks_.find(place); covered < bytes;) {
    Block rest = std::move(block->second);
    covered += rest.bytes;
    block = blocks_.erase(block);
    if (covered <= bytes) continue;
    rest.bytes = covered - bytes;
    blocks_.insert({{place.first, place.second + bytes}, std::move(rest)});
  }
  return blocks_[place] = {.bytes = bytes, .live = true};
}

inline void* RecordingPool::allocate(std::size_t bytes, StreamId stream) {
  const std::size_t size = (std::max<std::size_t>(bytes, 1) + kGranularity - 1) / kGranularity * kGranularity;
  std::optional<Place> place = find(size, stream);
  if (!place) {
    place = Place{slabs_.size(), 0};
    add(grow_(size));
  }
  Block& block = take(*place, size);
  block.asked = bytes;
  block.used = {{stream, ++seen_[stream][stream]}};
  void* const data = static_cast<std::byte*>(slabs_[place->first].data) + place->second;
  live_[data] = *place;
  return data;
}

inline bool RecordingPool::deallocate(void* data, StreamId stream) {
  const auto found = live_.find(data);
  if (found == live_.end()) return false;
  Block& block = blocks_.at(found->second);
  block.live = false;
  // The allocation stays: should a stream free what it does not know of yet, it may still not have it at once.
  block.used[stream] = ++seen_[stream][stream];
  live_.erase(found);
  return true;
}

inline void RecordingPool::wait(StreamId waiting, StreamId on) {
  Clock& own = seen_[waiting];
  for (const auto& [stream, count] : seen_[on]) own[stream] = std::max(own[stream], count);
}

inline std::vector<RecordingPool::Slab> RecordingPool::live() const {
  std::vector<Slab> all;
  for (const auto& [data, place] : live_) all.push_back({const_cast<void*>(data), blocks_.at(place).asked});
  return all;
}

}  // namespace retort::kernels
