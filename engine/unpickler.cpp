#include "engine/unpickler.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "engine/pickle_calls.h"
#include "kernels/error.h"

namespace retort {
namespace {

// Far above any checkpoint: a pickle of a few bytes must not fill the memory.
constexpr std::size_t kMaxValues = 4'000'000;

}  // namespace

class Unpickler::Machine {
 public:
  Machine(Unpickler& owner, std::span<const std::byte> bytes)
      : where_(owner.where_), values_(owner.values_), bytes_(bytes) {}

  const PickleValue& run(std::size_t& used) {
    for (;;) {
      begin_ = at_;
      const auto code = static_cast<char>(read<std::uint8_t>());
      if (code == '.') {
        const PickleValue* const result = pop();
        used = at_;
        return *result;
      }
      step(code);
    }
  }

 private:
  using Items = std::vector<const PickleValue*>;

  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: byte {}: {}", where_, begin_, fmt::format(format, std::forward<Args>(args)...));
  }

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - at_) refuse("the pickle is cut off");
    const auto taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }

  template <typename T>
  T read() {  // little-endian, as is every machine this runs on
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string text(std::uint64_t count) {
    const auto bytes = take(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::string line() {
    const auto rest = bytes_.subspan(at_);
    const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
    if (end == rest.end()) refuse("the pickle is cut off");
    std::string found = text(static_cast<std::uint64_t>(end - rest.begin()));
    ++at_;
    return found;
  }

  void push_value(PickleValue value) {
    if (values_.size() >= kMaxValues) refuse("more than {} values: not a state dict", kMaxValues);
    values_.push_back(std::move(value));
    stack_.push_back(&values_.back());
  }

  template <typename T>
  void push(T value) {
    push_value({std::move(value)});
  }

  PickleValue* pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) refuse("the stack is empty");
    PickleValue* const top = stack_.back();
    stack_.pop_back();
    return top;
  }

  PickleValue* top() {
    PickleValue* const value = pop();
    stack_.push_back(value);
    return value;
  }

  // Everything above the last mark.
  Items pop_to_mark() {
    if (marks_.empty()) refuse("there is no mark");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    Items items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }

  void push_tuple(std::size_t count) {
    Items items(count);
    while (count > 0) items[--count] = pop();
    push(PickleList{std::move(items)});
  }

  void remember(std::uint64_t key) { memo_[key] = top(); }

  void recall(std::uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) refuse("nothing was remembered as {}", key);
    stack_.push_back(found->second);
  }

  // An object takes whatever is put into it, and keeps nothing.
  bool is_inert() { return top()->as<PickleObject>() != nullptr; }

  void append(const Items& items) {
    if (is_inert()) return;
    auto* const list = std::get_if<PickleList>(&top()->value);
    if (list == nullptr) refuse("appends to what is no list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }

  void set_items(const Items& items) {
    if (is_inert()) return;
    auto* const dict = std::get_if<PickleDict>(&top()->value);
    if (dict == nullptr) refuse("sets an item of what is no dictionary");
    if (items.size() % 2 != 0) refuse("a key without a value");
    for (std::size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
  }

  void push_integer(std::uint64_t length) {  // LONG: two's complement, little-endian
    const auto bytes = take(length);
    if (length > 8) {
      push(PickleBig{});
      return;
    }
    std::uint64_t value = length > 0 && (bytes.back() & std::byte{0x80}) != std::byte{0} ? ~std::uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), length);
    push(static_cast<std::int64_t>(value));
  }

  std::string here() const { return fmt::format("{}: byte {}", where_, begin_); }

  void reduce() {
    const auto* const arguments = pop()->as<PickleList>();
    const PickleValue* const callee = pop();
    if (arguments == nullptr) refuse("calls with what is no tuple");
    push_value(called(here(), *callee, *arguments));
  }

  // The class below the arguments (and, for NEWOBJ_EX, those by name).
  void make_object(int arguments) {
    while (arguments-- > 0) pop();
    push_value(called(here(), *pop(), {}));
  }

  void step(char code);

  const std::string& where_;
  std::deque<PickleValue>& values_;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0, begin_ = 0;  // `begin_`: of the running instruction
  std::vector<PickleValue*> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::unordered_map<std::uint64_t, PickleValue*> memo_;
};

// The instructions of protocols 2 to 5 that are of use (CPython, Lib/pickletools.py).
void Unpickler::Machine::step(char code) {
  switch (static_cast<std::uint8_t>(code)) {
    case 0x80:  // PROTO
      if (const auto version = read<std::uint8_t>(); version < 2 || version > 5) refuse("protocol {}", version);
      break;
    case 0x95:  // FRAME
      read<std::uint64_t>();
      break;
    case '(':
      marks_.push_back(stack_.size());
      break;
    case '0':
      pop();
      break;
    case '1':
      pop_to_mark();
      break;
    case 'N':
      push(std::monostate{});
      break;
    case 0x88:
      push(true);
      break;
    case 0x89:
      push(false);
      break;
    case 'K':
      push(std::int64_t{read<std::uint8_t>()});
      break;
    case 'M':
      push(std::int64_t{read<std::uint16_t>()});
      break;
    case 'J':
      push(std::int64_t{read<std::int32_t>()});
      break;
    case 0x8a:  // LONG1
      push_integer(read<std::uint8_t>());
      break;
    case 0x8b: {  // LONG4
      const auto length = read<std::int32_t>();
      if (length < 0) refuse("a number of {} bytes", length);
      push_integer(static_cast<std::uint64_t>(length));
      break;
    }
    case 'G':  // BINFLOAT, big-endian
      push(std::bit_cast<double>(__builtin_bswap64(read<std::uint64_t>())));
      break;
    case 'X':
      push(text(read<std::uint32_t>()));
      break;
    case 0x8c:
      push(text(read<std::uint8_t>()));
      break;
    case 0x8d:
      push(text(read<std::uint64_t>()));
      break;
    case 'U':  // SHORT_BINSTRING: Python 2's text
      push(text(read<std::uint8_t>()));
      break;
    case 'T': {  // BINSTRING
      const auto length = read<std::int32_t>();
      if (length < 0) refuse("a text of {} bytes", length);
      push(text(static_cast<std::uint64_t>(length)));
      break;
    }
    case 'C':
      push(PickleBytes{text(read<std::uint8_t>())});
      break;
    case 'B':
      push(PickleBytes{text(read<std::uint32_t>())});
      break;
    case 0x96:  // BYTEARRAY8
    case 0x8e:
      push(PickleBytes{text(read<std::uint64_t>())});
      break;
    case ']':
    case ')':
    case 0x8f:  // EMPTY_SET
      push(PickleList{});
      break;
    case '}':
      push(PickleDict{});
      break;
    case 'l':
    case 't':
    case 0x91:  // FROZENSET
      push(PickleList{pop_to_mark()});
      break;
    case 'd': {
      const Items items = pop_to_mark();
      push(PickleDict{});
      set_items(items);
      break;
    }
    case 0x85:
    case 0x86:
    case 0x87:
      push_tuple(static_cast<std::uint8_t>(code) - 0x84u);
      break;
    case 'a': {
      const PickleValue* const item = pop();
      append({item});
      break;
    }
    case 'e':
    case 0x90:  // ADDITEMS
      append(pop_to_mark());
      break;
    case 's': {
      const PickleValue* const value = pop();
      const PickleValue* const key = pop();
      set_items({key, value});
      break;
    }
    case 'u':
      set_items(pop_to_mark());
      break;
    case 'q':
      remember(read<std::uint8_t>());
      break;
    case 'r':
      remember(read<std::uint32_t>());
      break;
    case 0x94:  // MEMOIZE
      remember(memo_.size());
      break;
    case 'h':
      recall(read<std::uint8_t>());
      break;
    case 'j':
      recall(read<std::uint32_t>());
      break;
    case 'c': {
      const std::string module = line();
      push(PickleGlobal{module + "." + line(), begin_});
      break;
    }
    case 0x93: {  // STACK_GLOBAL
      const auto* const name = pop()->as<std::string>();
      const auto* const module = pop()->as<std::string>();
      if (name == nullptr || module == nullptr) refuse("a name that is no text");
      push(PickleGlobal{*module + "." + *name, begin_});
      break;
    }
    case 'R':
      reduce();
      break;
    case 0x81:  // NEWOBJ
      make_object(1);
      break;
    case 0x92:  // NEWOBJ_EX
      make_object(2);
      break;
    case 'o': {  // OBJ
      const Items items = pop_to_mark();
      if (items.empty()) refuse("an object without a class");
      push_value(called(here(), *items[0], {}));
      break;
    }
    case 'i': {  // INST
      const std::string module = line(), name = line();
      pop_to_mark();
      push(PickleObject{module + "." + name, begin_});
      break;
    }
    case 'b':  // BUILD: attributes, such as the _metadata of an OrderedDict, are of no use here
      pop();
      top();
      break;
    case 'Q':
      push_value(stored(here(), *pop()));
      break;
    default:
      refuse("the instruction 0x{:02x}, which no state dict needs", static_cast<std::uint8_t>(code));
  }
}

const PickleValue& Unpickler::load(std::span<const std::byte> bytes, std::size_t& used) {
  return Machine(*this, bytes).run(used);
}

}  // namespace retort
