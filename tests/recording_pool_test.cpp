// The bookkeeping of a recording's memory, against what the recorded order of the streams allows.
#include "kernels/cuda/recording_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bitset>
#include <random>
#include <stdexcept>

namespace retort::kernels {
namespace {

using Slab = RecordingPool::Slab;

char streams[4];
RecordingPool::StreamId stream(int number) {
  return &streams[number];
}

// Slabs at made-up addresses, each right behind the one before it.
class Slabs {
 public:
  explicit Slabs(std::size_t at_least = 0) : at_least_(at_least) {}
  RecordingPool::Grow grow() {
    return [this](std::size_t bytes) {
      const std::size_t size = std::max(bytes, at_least_);
      given_.push_back({reinterpret_cast<void*>(next_), size});
      next_ += size;
      return given_.back();
    };
  }
  const std::vector<Slab>& given() const { return given_; }

 private:
  std::size_t at_least_;
  std::uintptr_t next_ = std::uintptr_t{1} << 40;
  std::vector<Slab> given_;
};

TEST(RecordingPool, AFreedBlockIsHandedOutAgainOnItsStream) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  void* const first = pool.allocate(1000, stream(0));
  EXPECT_TRUE(pool.deallocate(first, stream(0)));
  EXPECT_EQ(pool.allocate(900, stream(0)), first);
  EXPECT_EQ(slabs.given().size(), 1u);
}

TEST(RecordingPool, AnotherStreamGetsItOnceItHasWaited) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  void* const block = pool.allocate(1024, stream(0));
  pool.wait(stream(1), stream(0));  // too early: what follows is not covered
  pool.deallocate(block, stream(0));
  void* const other = pool.allocate(1024, stream(1));
  EXPECT_NE(other, block);
  pool.wait(stream(0), stream(1));  // the wrong way round
  EXPECT_NE(pool.allocate(1024, stream(1)), block);
  pool.wait(stream(1), stream(0));
  EXPECT_EQ(pool.allocate(1024, stream(1)), block);
}

TEST(RecordingPool, WaitingIsHandedOn) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  void* const block = pool.allocate(1024, stream(0));
  pool.deallocate(block, stream(0));
  pool.wait(stream(1), stream(0));
  pool.wait(stream(2), stream(1));
  EXPECT_EQ(pool.allocate(1024, stream(2)), block);
}

TEST(RecordingPool, TheStreamThatFreesDecides) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  void* const block = pool.allocate(1024, stream(0));
  pool.wait(stream(1), stream(0));
  pool.deallocate(block, stream(1));
  EXPECT_NE(pool.allocate(1024, stream(0)), block);
  EXPECT_EQ(pool.allocate(1024, stream(1)), block);
}

TEST(RecordingPool, AFreeThatIsNotInOrderGivesNothingAway) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  void* const block = pool.allocate(1024, stream(0));
  pool.deallocate(block, stream(1));
  EXPECT_NE(pool.allocate(1024, stream(0)), block);
  EXPECT_NE(pool.allocate(1024, stream(1)), block);
  pool.wait(stream(1), stream(0));
  EXPECT_EQ(pool.allocate(1024, stream(1)), block);
}

TEST(RecordingPool, NeighboursAreJoinedForWhoMayUseAllOfThem) {
  Slabs slabs(4 * RecordingPool::kGranularity);
  RecordingPool pool({}, slabs.grow());
  constexpr std::size_t kOne = RecordingPool::kGranularity;
  void* const a = pool.allocate(kOne, stream(0));
  void* const b = pool.allocate(kOne, stream(0));
  pool.deallocate(a, stream(0));
  pool.wait(stream(1), stream(0));
  pool.deallocate(b, stream(1));
  // Stream 0 may have a, and what nobody has used yet; between them lies b.
  EXPECT_EQ(pool.allocate(2 * kOne, stream(0)), static_cast<std::byte*>(b) + kOne);
  EXPECT_EQ(slabs.given().size(), 1u);
  pool.wait(stream(2), stream(0));
  pool.wait(stream(2), stream(1));
  EXPECT_EQ(pool.allocate(2 * kOne, stream(2)), a);
  EXPECT_EQ(slabs.given().size(), 1u);
}

TEST(RecordingPool, TakesTheSmallestThatFitsAndLeavesTheRest) {
  Slabs slabs(16 * RecordingPool::kGranularity);
  RecordingPool pool({}, slabs.grow());
  constexpr std::size_t kOne = RecordingPool::kGranularity;
  void* const large = pool.allocate(8 * kOne, stream(0));
  pool.allocate(kOne, stream(0));
  void* const small = pool.allocate(3 * kOne, stream(0));
  pool.allocate(4 * kOne, stream(0));  // to the end
  pool.deallocate(large, stream(0));
  pool.deallocate(small, stream(0));
  EXPECT_EQ(pool.allocate(2 * kOne, stream(0)), small);
  EXPECT_EQ(pool.allocate(kOne, stream(0)), static_cast<std::byte*>(small) + 2 * kOne);
  EXPECT_EQ(pool.allocate(8 * kOne, stream(0)), large);
  EXPECT_EQ(slabs.given().size(), 1u);
}

TEST(RecordingPool, NoBlockCrossesASlab) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  for (void* const block : {pool.allocate(1024, stream(0)), pool.allocate(1024, stream(0))}) {
    pool.deallocate(block, stream(0));
  }
  ASSERT_EQ(slabs.given().size(), 2u);  // neighbours in memory
  pool.allocate(2048, stream(0));
  EXPECT_EQ(slabs.given().size(), 3u);
  EXPECT_EQ(slabs.given().back().bytes, 2048u);
}

TEST(RecordingPool, KeepsSlabsWholeOnRequest) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow(), false);
  void* const block = pool.allocate(4096, stream(0));
  pool.deallocate(block, stream(0));
  EXPECT_NE(pool.allocate(2048, stream(0)), block);
  EXPECT_EQ(pool.allocate(4000, stream(0)), block);  // 4096 when rounded
  EXPECT_EQ(slabs.given().size(), 2u);
}

TEST(RecordingPool, TheNextRecordingFindsAllSlabsFree) {
  Slabs slabs;
  RecordingPool before({}, slabs.grow());
  void* const block = before.allocate(4096, stream(0));
  RecordingPool pool(slabs.given(), slabs.grow());
  EXPECT_FALSE(pool.deallocate(block, stream(0)));
  EXPECT_EQ(pool.allocate(4096, stream(3)), block);
}

TEST(RecordingPool, KnowsWhatIsKept) {
  Slabs slabs;
  RecordingPool pool({}, slabs.grow());
  void* const kept = pool.allocate(1000, stream(0));
  void* const freed = pool.allocate(1000, stream(0));
  EXPECT_NE(pool.allocate(0, stream(0)), nullptr);
  pool.deallocate(freed, stream(0));
  EXPECT_FALSE(pool.deallocate(freed, stream(0)));
  EXPECT_FALSE(pool.deallocate(streams, stream(0)));
  std::size_t bytes = 0;
  for (const Slab& slab : pool.live()) bytes += slab.bytes;
  EXPECT_EQ(pool.live().size(), 2u);
  EXPECT_EQ(bytes, 1000u);
  EXPECT_TRUE(pool.deallocate(kept, stream(0)));
}

TEST(RecordingPool, OutlivesADeviceThatIsFull) {
  Slabs slabs;
  bool full = false;
  RecordingPool pool({}, [&, grow = slabs.grow()](std::size_t bytes) {
    if (full) throw std::runtime_error("full");
    return grow(bytes);
  });
  void* const block = pool.allocate(512, stream(0));
  full = true;
  EXPECT_THROW(pool.allocate(512, stream(0)), std::runtime_error);
  pool.deallocate(block, stream(0));
  EXPECT_EQ(pool.allocate(512, stream(0)), block);
}

// Random work on four streams. What comes before what is kept as one set of earlier operations an operation; a block may
// lie where another lay only if that one was freed in this set.
TEST(RecordingPool, NothingThatRunsSideBySideSharesMemory) {
  constexpr std::size_t kOperations = 1500;
  using Set = std::bitset<kOperations>;
  struct Life {
    std::uintptr_t begin, end;
    std::optional<std::size_t> freed;
  };
  std::size_t reused_across = 0;
  for (unsigned seed = 0; seed < 8; ++seed) {
    std::mt19937 random(seed);
    Slabs slabs(1 << 16);
    RecordingPool pool({}, slabs.grow());
    std::vector<Set> before(4);  // what comes before a stream's next operation
    std::vector<Life> lives;
    std::vector<int> freed_on;
    for (std::size_t operation = 0; operation < kOperations; ++operation) {
      const int s = static_cast<int>(random() % 4);
      const auto index = static_cast<std::size_t>(s);
      const unsigned kind = random() % 10;
      if (kind == 0) {
        const int on = static_cast<int>(random() % 4);
        pool.wait(stream(s), stream(on));
        before[index] |= before[static_cast<std::size_t>(on)];
      } else if (kind < 6) {
        const std::size_t bytes = 1 + random() % 9000;
        const auto begin = reinterpret_cast<std::uintptr_t>(pool.allocate(bytes, stream(s)));
        EXPECT_EQ(begin % RecordingPool::kGranularity, 0u);
        EXPECT_TRUE(std::any_of(slabs.given().begin(), slabs.given().end(), [&](const Slab& slab) {
          const auto first = reinterpret_cast<std::uintptr_t>(slab.data);
          return begin >= first && begin + bytes <= first + slab.bytes;
        }));
        for (std::size_t i = 0; i < lives.size(); ++i) {
          if (lives[i].end <= begin || begin + bytes <= lives[i].begin) continue;
          ASSERT_TRUE(lives[i].freed && before[index][*lives[i].freed]) << "seed " << seed << ", " << operation;
          reused_across += freed_on[i] != s ? 1 : 0;
        }
        lives.push_back({begin, begin + bytes, std::nullopt});
        freed_on.push_back(-1);
      } else {
        std::vector<std::size_t> live;
        for (std::size_t i = 0; i < lives.size(); ++i) {
          if (!lives[i].freed) live.push_back(i);
        }
        if (live.empty()) continue;
        const std::size_t chosen = live[random() % live.size()];
        ASSERT_TRUE(pool.deallocate(reinterpret_cast<void*>(lives[chosen].begin), stream(s)));
        lives[chosen].freed = operation;
        freed_on[chosen] = s;
      }
      before[index].set(operation);
    }
  }
  EXPECT_GT(reused_across, 100u);  // or the test would show little
}

// A step's pattern: everything forward, back in reverse order with one gradient beside it, small things all along.
TEST(RecordingPool, AStepNeedsLittleMoreThanItsPeak) {
  Slabs slabs(16 << 20);
  RecordingPool pool({}, slabs.grow());
  std::vector<std::pair<void*, std::size_t>> saved;
  std::size_t peak = 0;
  for (int layer = 0; layer < 20; ++layer) {
    const std::size_t bytes = (std::size_t{16} << 20) >> layer / 5;
    pool.deallocate(pool.allocate(131, stream(0)), stream(0));
    saved.emplace_back(pool.allocate(bytes, stream(0)), bytes);
    peak += bytes;
  }
  void* gradient = pool.allocate(saved.back().second, stream(0));
  for (; !saved.empty(); saved.pop_back()) {
    void* const next = pool.allocate(saved.back().second, stream(0));
    pool.deallocate(gradient, stream(0));
    pool.deallocate(saved.back().first, stream(0));
    gradient = next;
  }
  pool.deallocate(gradient, stream(0));
  std::size_t held = 0;
  for (const Slab& slab : slabs.given()) held += slab.bytes;
  EXPECT_LE(held, peak + peak / 4);
  EXPECT_TRUE(pool.live().empty());
}

}  // namespace
}  // namespace retort::kernels
