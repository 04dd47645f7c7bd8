#include "tests/simt/simt.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/context/fiber.hpp>
#include <boost/context/preallocated.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <exception>
#include <mutex>
#include <numeric>
#include <string_view>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/error.h"
#include "tests/simt/heap.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace retort::simt {

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kMaxSharedBytes = 48 * 1024;  // what a launch gets without asking for more
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kStackBytes = 256 * 1024;
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif

LaneOrder g_order = LaneOrder::forward;
std::uint64_t g_seed = 1;
int g_sparse = 0;  // SparseLaunches that exist

bool is_greedy(LaneOrder order) {
  return order == LaneOrder::greedy_forward || order == LaneOrder::greedy_reversed;
}

constexpr int kVote = -1;

struct Abort {};  // unwinds a thread of a block that has failed elsewhere

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): enough for shuffling.
std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

template <typename T>
void arrange(std::vector<T>& items, std::uint64_t salt) {
  if (g_order == LaneOrder::reversed || g_order == LaneOrder::greedy_reversed) std::reverse(items.begin(), items.end());
  if (g_order != LaneOrder::shuffled) return;
  std::uint64_t state = g_seed * 0x9E3779B97F4A7C15u + salt;
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[next_random(state) % i]);
}

// The blocks of a grid that run, in numerical order.
std::vector<std::uint64_t> chosen_blocks(std::uint64_t blocks) {
  std::vector<std::uint64_t> chosen;
  if (g_sparse == 0) {
    chosen.resize(blocks);
    std::iota(chosen.begin(), chosen.end(), std::uint64_t{0});
    return chosen;
  }
  for (std::uint64_t power = 1; power <= blocks; power *= 2) {
    for (const std::uint64_t block : {power - 1, power}) {
      if (block < blocks && (chosen.empty() || block > chosen.back())) chosen.push_back(block);
    }
  }
  if (chosen.back() != blocks - 1) chosen.push_back(blocks - 1);
  return chosen;
}

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::string_view(a.file_name()) == std::string_view(b.file_name()));
}

std::string place(const Where& where) {
  std::string_view file = where.file_name();
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos) file.remove_prefix(slash + 1);
  // "void retort::kernels::{anonymous}::sum_kernel(const T*, long int) [with T = float]" -> "sum_kernel"
  std::string_view function = where.function_name();
  function = function.substr(0, function.find('('));
  for (const char c : {' ', ':'}) {
    if (const auto cut = function.rfind(c); cut != std::string_view::npos) function.remove_prefix(cut + 1);
  }
  return fmt::format("{}:{} in {}", file, where.line(), function);
}

enum class State : std::uint8_t { fresh, ready, at_barrier, in_warp, done };

struct Fiber;

struct Lane {
  State state = State::fresh;
  Fiber* fiber = nullptr;  // the one that runs this thread, while it is suspended
  uint3 index;
  Where where;            // of the barrier or collective it waits at
  const char* what = "";  // its name
  unsigned mask = 0;      // of the collective
  int source = 0;         // the lane whose value it wants, or kVote
  std::uint64_t value = 0, result = 0;
};

// A stack that runs threads; when one ends, it goes on with the next that has not begun, so kernels without barriers
// need one switch a block.
struct Fiber {
  boost::context::fiber context;
#ifdef __SANITIZE_ADDRESS__
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;
#endif
};

struct SharedArray {
  const void* key;
  std::size_t offset, bytes;
};

class Block {
 public:
  void run(dim3 grid, dim3 block, std::size_t shared_bytes, const Where& site, void (*body)(void*), void* context);
  void* shared(const void* key, std::size_t bytes, std::size_t alignment);
  void* dynamic() { return dynamic_bytes_ == 0 ? nullptr : shared(this, dynamic_bytes_, 16); }
  void barrier(const Where& where);
  std::uint64_t collective(unsigned mask, std::uint64_t value, int source, const char* what, const Where& where);
  unsigned current_index() const { return current_; }
  [[noreturn]] void fail_lane(unsigned lane, const std::string& text) const;

 private:
  void run_block(std::uint64_t salt);
  [[noreturn]] void run_forever(Fiber& fiber);
  void run_lanes(Fiber& fiber);
  void suspend(State state);
  void enter(Fiber& fiber);
  void leave(Fiber& fiber);
  void start_or_resume(unsigned lane);
  Fiber& idle_fiber();
  void select(unsigned lane);
  void complete_warp(unsigned lane);
  void keep_first_warp();
  void release_barrier();
  void abandon();
  void unguard_shared();
  void check_shared();
  std::string describe(unsigned lane) const;
  std::string who(unsigned lane) const;

  std::vector<std::unique_ptr<Fiber>> fibers_;  // all ever made
  std::vector<Fiber*> idle_;
  std::vector<Lane> lanes_;
  std::array<unsigned, kMaxThreads / kWarp> warp_waiting_{};  // lanes of each warp that wait at a collective
  std::vector<unsigned> order_;
  std::size_t cursor_ = 0;
  unsigned current_ = 0, threads_ = 0, done_ = 0;
  bool aborting_ = false;
  std::exception_ptr failure_;
  boost::context::fiber scheduler_;
#ifdef __SANITIZE_ADDRESS__
  const void* scheduler_bottom_ = nullptr;
  std::size_t scheduler_bytes_ = 0;
#endif

  Where site_;
  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;
  std::size_t dynamic_bytes_ = 0;
  alignas(64) std::array<unsigned char, 2 * kMaxSharedBytes> memory_{};
  std::size_t memory_used_ = 0, memory_asked_ = 0;
  std::vector<SharedArray> arrays_;
};

std::string Block::who(unsigned lane) const {
  const uint3 t = lanes_[lane].index;
  return fmt::format("launch at {}: block ({}, {}, {}), thread ({}, {}, {})", place(site_), blockIdx.x, blockIdx.y,
                     blockIdx.z, t.x, t.y, t.z);
}

void Block::fail_lane(unsigned lane, const std::string& text) const {
  fail("simt: {}: {}", who(lane), text);
}

std::string Block::describe(unsigned lane) const {
  const Lane& l = lanes_[lane];
  if (l.state == State::done) return "has returned";
  return fmt::format("waits at {} ({})", l.what, place(l.where));
}

// --- switching -----------------------------------------------------------------------------------------------------

void Block::select(unsigned lane) {
  current_ = lane;
  threadIdx = lanes_[lane].index;
}

// On a fiber, until it is suspended: the threads of one block after another.
void Block::run_lanes(Fiber& fiber) {
  for (;;) {
    lanes_[current_].state = State::ready;
    lanes_[current_].fiber = &fiber;
    try {
      body_(context_);
    } catch (const Abort&) {  // NOLINT: another thread has failed already
    } catch (...) {
      if (!failure_) failure_ = std::current_exception();
    }
    lanes_[current_].state = State::done;
    ++done_;
    if (failure_ || cursor_ >= order_.size() || lanes_[order_[cursor_]].state != State::fresh) return;
    select(order_[cursor_++]);
  }
}

void Block::run_forever(Fiber& fiber) {
  for (;;) {
    run_lanes(fiber);
    idle_.push_back(&fiber);
    leave(fiber);
  }
}

// On the scheduler: gives the processor to `fiber` until it hands it back.
void Block::enter(Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack_bottom, fiber.stack_bytes);
#endif
  fiber.context = std::move(fiber.context).resume();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

// On a fiber: hands the processor back to the scheduler until the fiber is entered again.
void Block::leave([[maybe_unused]] Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_bottom_, scheduler_bytes_);
#endif
  scheduler_ = std::move(scheduler_).resume();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_bottom_, &scheduler_bytes_);
#endif
}

void Block::suspend(State state) {
  Lane& lane = lanes_[current_];
  lane.state = state;
  leave(*lane.fiber);
  if (aborting_) throw Abort{};
}

Fiber& Block::idle_fiber() {
  if (idle_.empty()) {
    auto fiber = std::make_unique<Fiber>();
    boost::context::protected_fixedsize_stack allocator(kStackBytes);
    const boost::context::stack_context stack = allocator.allocate();
    // Stacks that all began at the same place of their pages would share a few cache lines.
    const std::size_t skipped = fibers_.size() % 61 * 64;
    char* const top = static_cast<char*>(stack.sp) - skipped;
    const std::size_t size = stack.size - skipped;
#ifdef __SANITIZE_ADDRESS__
    fiber->stack_bottom = static_cast<char*>(stack.sp) - stack.size;
    fiber->stack_bytes = stack.size;
#endif
    fiber->context =
        boost::context::fiber(std::allocator_arg, boost::context::preallocated(top, size, stack), allocator,
                              [this, raw = fiber.get()](boost::context::fiber&& scheduler) {
                                scheduler_ = std::move(scheduler);
#ifdef __SANITIZE_ADDRESS__
                                __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom_, &scheduler_bytes_);
#endif
                                run_forever(*raw);
                                return boost::context::fiber();
                              });
    idle_.push_back(fiber.get());
    fibers_.push_back(std::move(fiber));
  }
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
}

// Runs one thread until it waits or ends.
void Block::start_or_resume(unsigned lane) {
  select(lane);
  enter(lanes_[lane].state == State::fresh ? idle_fiber() : *lanes_[lane].fiber);
}

// --- barriers and collectives --------------------------------------------------------------------------------------

void Block::barrier(const Where& where) {
  Lane& lane = lanes_[current_];
  lane.where = where;
  lane.what = "__syncthreads";
  suspend(State::at_barrier);
}

std::uint64_t Block::collective(unsigned mask, std::uint64_t value, int source, const char* what, const Where& where) {
  const unsigned me = current_;
  if ((mask >> (me % kWarp) & 1u) == 0) {
    fail_lane(me,
              fmt::format("{} at {}: mask {:#010x} lacks the calling lane {}", what, place(where), mask, me % kWarp));
  }
  if (source != kVote && (mask >> source & 1u) == 0) {
    fail_lane(me,
              fmt::format("{} at {}: reads lane {}, which is not in mask {:#010x}", what, place(where), source, mask));
  }
  Lane& lane = lanes_[me];
  lane.where = where;
  lane.what = what;
  lane.mask = mask;
  lane.source = source;
  lane.value = value;
  lane.state = State::in_warp;
  ++warp_waiting_[me / kWarp];
  complete_warp(me);
  suspend(lane.state);
  return lane.result;
}

// Lets the lanes of the mask of `index` go on when all of them have come to the same place with the same mask.
void Block::complete_warp(unsigned index) {
  const Lane& lane = lanes_[index];
  const unsigned first = index / kWarp * kWarp;
  const auto lanes = static_cast<unsigned>(std::popcount(lane.mask));
  if (warp_waiting_[index / kWarp] < lanes) return;
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((lane.mask >> l & 1u) == 0) continue;
    if (first + l >= threads_) return;
    const Lane& other = lanes_[first + l];
    if (other.state != State::in_warp || other.mask != lane.mask || !same_place(other.where, lane.where)) return;
  }
  unsigned votes = 0;
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((lane.mask >> l & 1u) != 0 && lanes_[first + l].value != 0) votes |= 1u << l;
  }
  warp_waiting_[index / kWarp] -= lanes;
  const unsigned mask = lane.mask;
  for (unsigned l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1u) == 0) continue;
    Lane& other = lanes_[first + l];
    other.result = other.source == kVote ? votes : lanes_[first + static_cast<unsigned>(other.source)].value;
    other.state = State::ready;
  }
}

// No thread can go on. Either all wait at one barrier, which then opens, or the kernel is wrong.
void Block::release_barrier() {
  for (unsigned t = 0; t < threads_; ++t) {
    const Lane& lane = lanes_[t];
    if (lane.state != State::in_warp) continue;
    const unsigned first = t / kWarp * kWarp;
    for (unsigned l = 0; l < kWarp; ++l) {
      if ((lane.mask >> l & 1u) == 0) continue;
      const auto complain = [&](const std::string& found) {
        fail_lane(t, fmt::format("{} at {} with mask {:#010x} waits for lane {}, which {}", lane.what,
                                 place(lane.where), lane.mask, l, found));
      };
      if (first + l >= threads_) complain("does not exist: the block has too few threads");
      const Lane& other = lanes_[first + l];
      if (other.state != State::in_warp || !same_place(other.where, lane.where)) complain(describe(first + l));
      if (other.mask != lane.mask) complain(fmt::format("called it with mask {:#010x}", other.mask));
    }
  }
  for (unsigned t = 0; t < threads_; ++t) {
    if (lanes_[t].state != State::at_barrier) continue;
    for (unsigned o = 0; o < threads_; ++o) {
      const Lane& other = lanes_[o];
      if (other.state == State::at_barrier && same_place(other.where, lanes_[t].where)) continue;
      const uint3 i = other.index;
      fail_lane(t, fmt::format("__syncthreads at {} is not reached by thread ({}, {}, {}), which {}",
                               place(lanes_[t].where), i.x, i.y, i.z, describe(o)));
    }
    break;
  }
  for (Lane& lane : lanes_) lane.state = State::ready;
}

// Leaves only the lanes of the first one's warp in order_.
void Block::keep_first_warp() {
  const unsigned warp = order_.front() / kWarp;
  std::erase_if(order_, [warp](unsigned lane) { return lane / kWarp != warp; });
}

// --- a block -------------------------------------------------------------------------------------------------------

void Block::run_block(std::uint64_t salt) {
  lanes_.assign(threads_, Lane{});
  for (unsigned t = 0; t < threads_; ++t) {
    lanes_[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
  }
  done_ = 0;
  warp_waiting_.fill(0);
  memory_used_ = 0;
  memory_asked_ = dynamic_bytes_;
  arrays_.clear();
  for (std::uint64_t pass = 0; done_ < threads_; ++pass) {
    order_.clear();
    cursor_ = 0;
    for (unsigned t = 0; t < threads_; ++t) {
      if (lanes_[t].state == State::fresh || lanes_[t].state == State::ready) order_.push_back(t);
    }
    if (order_.empty()) {
      try {
        release_barrier();
      } catch (const Error&) {
        failure_ = std::current_exception();
      }
    }
    arrange(order_, salt * 0x100000001B3u + pass);
    if (is_greedy(g_order) && !order_.empty()) keep_first_warp();
    while (cursor_ < order_.size() && !failure_) start_or_resume(order_[cursor_++]);
    if (failure_) abandon();
  }
  check_shared();
}

// Unwinds the threads that wait, so that their fibers are free again, and throws what went wrong.
void Block::abandon() {
  aborting_ = true;
  for (unsigned t = 0; t < threads_; ++t) {
    const State state = lanes_[t].state;
    if (state != State::fresh && state != State::done) {
      select(t);
      enter(*lanes_[t].fiber);
    }
  }
  aborting_ = false;
  unguard_shared();
  std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Block::run(dim3 grid, dim3 block, std::size_t shared_bytes, const Where& site, void (*body)(void*),
                void* context) {
  site_ = site;
  body_ = body;
  context_ = context;
  dynamic_bytes_ = shared_bytes;
  gridDim = grid;
  blockDim = block;
  threads_ = block.x * block.y * block.z;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  const bool fits = threads_ > 0 && block.x <= kMaxThreads && block.y <= kMaxThreads && block.z <= 64 &&
                    threads_ <= kMaxThreads && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  check(fits, "simt: launch({{{}, {}, {}}}, {{{}, {}, {}}}) at {}: beyond what a device allows", grid.x, grid.y, grid.z,
        block.x, block.y, block.z, place(site));
  check(shared_bytes <= kMaxSharedBytes, "simt: launch at {}: {} bytes of dynamic shared memory; a launch has {}",
        place(site), shared_bytes, kMaxSharedBytes);
  std::vector<std::uint64_t> sequence = chosen_blocks(blocks);
  arrange(sequence, 0);
  for (const std::uint64_t b : sequence) {
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(b + 1);
  }
  heap().verify("launch at " + place(site));
}

// --- shared memory -------------------------------------------------------------------------------------------------

void* Block::shared(const void* key, std::size_t bytes, std::size_t alignment) {
  for (const SharedArray& array : arrays_) {
    if (array.key == key && array.bytes == bytes) return memory_.data() + array.offset;
  }
  if (key != this) memory_asked_ += bytes;  // dynamic memory counts from the beginning
  if (memory_asked_ > kMaxSharedBytes) {
    fail_lane(current_, fmt::format("{} bytes of shared memory; a launch has {}", memory_asked_, kMaxSharedBytes));
  }
  const std::size_t unit = std::max(alignment, kGuardBytes);
  const std::size_t offset = (memory_used_ + kGuardBytes + unit - 1) / unit * unit;
  const std::size_t end = offset + bytes + kGuardBytes;
  if (end > memory_.size()) fail_lane(current_, "too many shared arrays for the test harness");
  write_guard(memory_.data() + memory_used_, offset - memory_used_);
  std::memset(memory_.data() + offset, kPoison, bytes);
  write_guard(memory_.data() + offset + bytes, kGuardBytes);
  memory_used_ = end;
  arrays_.push_back({key, offset, bytes});
  return memory_.data() + offset;
}

void Block::unguard_shared() {
  lift_guard(memory_.data(), memory_.size());
}

void Block::check_shared() {
  unguard_shared();
  std::size_t at = 0;
  for (const SharedArray& array : arrays_) {
    const std::size_t after = array.offset + array.bytes;
    if (!guard_is_whole(memory_.data() + at, array.offset - at) ||
        !guard_is_whole(memory_.data() + after, kGuardBytes)) {
      fail("simt: launch at {}: block ({}, {}, {}): wrote outside a shared array of {} bytes", place(site_), blockIdx.x,
           blockIdx.y, blockIdx.z, array.bytes);
    }
    at = after + kGuardBytes;
  }
}

// One for the process, never destroyed: its fibers hold no resources but their stacks.
Block& machine() {
  static auto* const instance = new Block;
  return *instance;
}
std::mutex g_mutex;

}  // namespace

void set_lane_order(LaneOrder order, std::uint64_t seed) {
  g_order = order;
  g_seed = seed;
}
LaneOrder lane_order() {
  return g_order;
}
const char* name_of(LaneOrder order) {
  constexpr const char* kNames[] = {"forward", "reversed", "shuffled", "greedy_forward", "greedy_reversed"};
  return kNames[static_cast<std::size_t>(order)];
}

SparseLaunches::SparseLaunches() {
  ++g_sparse;
}
SparseLaunches::~SparseLaunches() {
  --g_sparse;
}

void run(dim3 grid, dim3 block, std::size_t shared_bytes, const Where& launch_site, void (*body)(void*),
         void* context) {
  const std::scoped_lock lock(g_mutex);
  machine().run(grid, block, shared_bytes, launch_site, body, context);
}

void* shared_bytes(const void* key, std::size_t bytes, std::size_t alignment) {
  return machine().shared(key, bytes, alignment);
}
void* dynamic_shared() {
  return machine().dynamic();
}
void __syncthreads(Where where) {
  machine().barrier(where);
}

namespace detail {
namespace {

// No-operations at the entry of a kernel, behind the landing pad of indirect calls: see __launch_bounds__.
unsigned bound_of([[maybe_unused]] const void* kernel) {
  unsigned warps = 0;
#ifdef __x86_64__
  constexpr unsigned char kLandingPad[] = {0xf3, 0x0f, 0x1e, 0xfa}, kNoOperation = 0x90;
  const auto* code = static_cast<const unsigned char*>(kernel);
  if (std::memcmp(code, kLandingPad, sizeof kLandingPad) == 0) code += sizeof kLandingPad;
  while (code[warps] == kNoOperation) ++warps;
#endif
  return warps * kWarp;
}

extern "C" char __data_start;  // NOLINT: the linker's name

bool is_host_memory(std::uintptr_t address) {
  static const std::uintptr_t stack_end = [] {
    pthread_attr_t attributes;
    void* base = nullptr;
    std::size_t size = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &base, &size);
    pthread_attr_destroy(&attributes);
    return reinterpret_cast<std::uintptr_t>(base) + size;
  }();
  if (address >= reinterpret_cast<std::uintptr_t>(&__data_start) &&
      address < reinterpret_cast<std::uintptr_t>(sbrk(0))) {
    return true;
  }
  return address >= reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) && address < stack_end;
}

}  // namespace

void check_bounds(const void* kernel, dim3 block, const Where& launch_site) {
  const unsigned threads = block.x * block.y * block.z, bound = bound_of(kernel);
  check(bound == 0 || threads <= bound, "simt: launch at {}: {} threads a block; the kernel's launch bound is {}",
        place(launch_site), threads, bound);
}
void check_pointer(const void* pointer, std::size_t alignment, std::size_t argument, const Where& launch_site) {
  check(pointer == nullptr || heap().owns(pointer),
        "simt: launch at {}: argument {} points to {}, which is no memory of the device", place(launch_site), argument,
        pointer);
  check(reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0,
        "simt: launch at {}: argument {} points to {}, which is no multiple of {}", place(launch_site), argument,
        pointer, alignment);
}
void check_members(const void* object, std::size_t bytes, std::size_t argument, const Where& launch_site) {
  for (std::size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
    std::uintptr_t word;
    std::memcpy(&word, static_cast<const char*>(object) + at, sizeof word);
    check(!is_host_memory(word) || heap().owns(reinterpret_cast<const void*>(word)),
          "simt: launch at {}: argument {} has at byte {} the address {:#x}, which is no memory of the device",
          place(launch_site), argument, at, word);
  }
}
void fail_alignment(const void* address, std::size_t alignment) {
  machine().fail_lane(machine().current_index(),
                      fmt::format("a pack at {}, which is no multiple of {}", address, alignment));
}

int lane() {
  return static_cast<int>(machine().current_index() % kWarp);
}
std::uint64_t exchange(unsigned mask, std::uint64_t value, int source, const char* what, const Where& where) {
  return machine().collective(mask, value, source, what, where);
}
unsigned vote(unsigned mask, bool value, const char* what, const Where& where) {
  return static_cast<unsigned>(machine().collective(mask, value ? 1 : 0, kVote, what, where));
}
}  // namespace detail

}  // namespace retort::simt

#ifndef RETORT_STANDIN  // which has kernels/cuda/launch.cpp
namespace retort::kernels {
inline namespace RETORT_DEVICE_NAMESPACE {

void detail::fail_launch(const Grid& grid, dim3 block, const char* problem) {
  fail("simt: launch({{{}, {}, {}}}, {{{}, {}, {}}}) at {}:{}: {}", grid.blocks.x, grid.blocks.y, grid.blocks.z,
       block.x, block.y, block.z, grid.where.file_name(), grid.where.line(), problem);
}

int multiprocessor_count() {
  return simt::g_sparse > 0 ? 1 << 24 : 2;
}

}  // namespace RETORT_DEVICE_NAMESPACE
}  // namespace retort::kernels
#endif
