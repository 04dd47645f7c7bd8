// The device's memory: one range of addresses, so that a device pointer is known by its value; blocks between guard
// zones; what is alive, and who used it when.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/device/device.h"

namespace retort::standin {

// Memory between guard zones, handed out many times.
struct Block {
  std::byte* data = nullptr;
  std::size_t capacity = 0;
  bool fresh = true;    // never poisoned yet
  bool settled = true;  // its last free has executed
  Position freed;       // that free
};

std::shared_ptr<Block> make_block(std::size_t bytes);  // its addresses go back when the last handle does
std::size_t capacity_for(std::size_t bytes);

// Blocks given back, the last one first.
class FreeBlocks {
 public:
  // The one given back last that fits and whose free is ordered before; null where there is none.
  std::shared_ptr<Block> take(std::size_t bytes, const Clock& clock);
  void put(std::shared_ptr<Block> block) { blocks_.push_back(std::move(block)); }
  // Drops those whose free has executed while more than `keep` of the bytes `held` are left; what was dropped.
  std::size_t trim(std::size_t held, std::size_t keep);

 private:
  std::vector<std::shared_ptr<Block>> blocks_;
};

struct Allocation {
  std::shared_ptr<Block> block;
  std::size_t bytes = 0;
  std::string from;  // the stream, for messages
  Position birth;
  const Capture* capture = nullptr;  // in which it lives, until that ends
  bool of_graph = false;
  cudaMemPool_t pool = nullptr;  // of what no graph owns

  // Accesses that no later one has made needless to remember.
  struct Access {
    Position at;
    const std::byte *begin, *end;
    bool written;
    std::string what, stream;
  };
  std::vector<Access> accesses;
  struct LastUse {
    std::uint64_t count;
    std::string what, stream;
  };
  std::map<std::size_t, LastUse> uses;  // by line
  bool prepared = false;                // its guards are written
};

// Who touches memory, and what is ordered before that.
struct Toucher {
  Position at;
  const Clock& clock;
  const std::string& what;
  const std::string& stream;
  const Capture* capture = nullptr;
};

bool is_device_address(const void* address);
// The live allocation with `data` in it or at its end, or null.
std::shared_ptr<Allocation> find_allocation(const void* data);
std::size_t live_allocations();  // without those of graphs

std::shared_ptr<Allocation> bring_to_life(std::shared_ptr<Block> block, std::size_t bytes, const Toucher& by);
// A finding where some use is not ordered before.
void end_life(const std::shared_ptr<Allocation>& allocation, const Toucher& by);

// A finding for a use that is not in live memory, not ordered behind the allocation, or in conflict with another that it
// has no order with. What was touched.
std::vector<std::shared_ptr<Allocation>> check_uses(const Toucher& by, const std::vector<Use>& uses);
void check_uses(Work& work, const std::vector<Use>& uses);
void check_guards(const Allocation& allocation, const Work& after);
void check_all_guards(const Work& after);

// Give an allocation and a free what they do when they execute: guards are written; looked at, and the memory turns NaN.
void set_allocation(Work& work, const std::shared_ptr<Allocation>& allocation);
void set_free(Work& work, const std::shared_ptr<Allocation>& allocation);

// Bytes of the device that pools and graphs hold. reserve() refuses with cudaErrorMemoryAllocation.
void reserve(std::size_t bytes);
void unreserve(std::size_t bytes);
std::size_t reserved();

void release_above_threshold();  // of all pools, at a synchronisation

}  // namespace retort::standin
