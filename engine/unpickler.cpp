#include "engine/unpickler.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "engine/suggest.h"
#include "kernels/error.h"

namespace retort {
namespace {

// Far above any checkpoint: a pickle of a few bytes must not fill the memory.
constexpr std::size_t kMaxValues = 4'000'000;

// The names a state dict is made of. Storages are torch.<Type>Storage.
constexpr std::string_view kOrderedDict = "collections.OrderedDict";
constexpr std::string_view kTensor = "torch._utils._rebuild_tensor";
constexpr std::string_view kTensorV2 = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kParameter = "torch._utils._rebuild_parameter";
constexpr std::string_view kSize = "torch.Size";
constexpr std::string_view kStorages[] = {"DoubleStorage", "FloatStorage", "HalfStorage",  "BFloat16Storage",
                                          "LongStorage",   "IntStorage",   "ShortStorage", "CharStorage",
                                          "ByteStorage",   "BoolStorage"};

std::optional<std::string> storage_type(std::string_view global) {
  constexpr std::string_view kPrefix = "torch.";
  if (!global.starts_with(kPrefix)) return std::nullopt;
  const std::string_view type = global.substr(kPrefix.size());
  if (std::find(std::begin(kStorages), std::end(kStorages), type) == std::end(kStorages)) return std::nullopt;
  return std::string(type);
}

bool is_allowed(std::string_view global) {
  for (const std::string_view known : {kOrderedDict, kTensor, kTensorV2, kParameter, kSize}) {
    if (global == known) return true;
  }
  return storage_type(global).has_value();
}

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

  template <typename T>
  PickleValue& push(T value) {
    if (values_.size() >= kMaxValues) refuse("more than {} values: not a state dict", kMaxValues);
    values_.push_back({std::move(value)});
    stack_.push_back(&values_.back());
    return values_.back();
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

  void append(const Items& items) {
    auto* const list = std::get_if<PickleList>(&top()->value);
    if (list == nullptr) refuse("appends to what is no list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }

  void set_items(const Items& items) {
    auto* const dict = std::get_if<PickleDict>(&top()->value);
    if (dict == nullptr) refuse("sets an item of what is no dictionary");
    if (items.size() % 2 != 0) refuse("a key without a value");
    for (std::size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
  }

  void push_global(const std::string& name) {
    if (!is_allowed(name)) {
      refuse(
          "asks for {}, which no tensor needs: refused. If the file is to be trusted, keep only its tensors with "
          "PyTorch: torch.save(model.state_dict(), FILE)",
          in_quotes(name));
    }
    push(PickleGlobal{name});
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

  std::int64_t whole(const PickleValue* value, const char* what) const {
    const auto* const number = value->as<std::int64_t>();
    if (number == nullptr || *number < 0) refuse("{} is no whole number", what);
    return *number;
  }

  std::vector<std::int64_t> whole_numbers(const PickleValue* value, const char* what) const {
    const auto* const list = value->as<PickleList>();
    if (list == nullptr) refuse("{} is no tuple", what);
    std::vector<std::int64_t> numbers;
    for (const PickleValue* item : list->items) numbers.push_back(whole(item, what));
    return numbers;
  }

  void push_tensor(const Items& args) {
    if (args.size() < 4) refuse("a tensor of {} arguments", args.size());
    const auto* const storage = args[0]->as<PickleStorage>();
    if (storage == nullptr) refuse("a tensor without a storage");
    push(PickleTensor{*storage, whole(args[1], "the offset"), whole_numbers(args[2], "the shape"),
                      whole_numbers(args[3], "the stride")});
  }

  void reduce() {
    const auto* const args = pop()->as<PickleList>();
    const auto* const global = pop()->as<PickleGlobal>();
    if (args == nullptr || global == nullptr) refuse("calls what is no name");
    if (global->name == kOrderedDict) {
      if (!args->items.empty()) refuse("an OrderedDict of {} arguments", args->items.size());
      push(PickleDict{});
    } else if (global->name == kTensor || global->name == kTensorV2) {
      push_tensor(args->items);
    } else if (global->name == kParameter) {
      if (args->items.empty() || args->items[0]->as<PickleTensor>() == nullptr) refuse("a parameter without a tensor");
      push(PickleTensor(*args->items[0]->as<PickleTensor>()));
    } else if (global->name == kSize) {
      const auto* const extents = args->items.size() == 1 ? args->items[0]->as<PickleList>() : nullptr;
      if (extents == nullptr) refuse("a size that is made of no tuple");
      push(PickleList(*extents));
    } else {
      refuse("calls {}", in_quotes(global->name));
    }
  }

  // ("storage", torch.FloatStorage, key, location, count) and in older files a view of another storage, or None.
  void push_storage() {
    const auto* const id = pop()->as<PickleList>();
    if (id == nullptr || id->items.size() < 5) refuse("a persistent id that is no storage");
    const auto* const kind = id->items[0]->as<std::string>();
    const auto* const global = id->items[1]->as<PickleGlobal>();
    const auto* const key = id->items[2]->as<std::string>();
    const auto type = global == nullptr ? std::nullopt : storage_type(global->name);
    if (kind == nullptr || *kind != "storage" || !type || key == nullptr) refuse("a persistent id that is no storage");
    if (id->items.size() > 5 && id->items[5]->as<std::monostate>() == nullptr) {
      refuse("a storage that is a view of another one");
    }
    push(PickleStorage{*type, *key, whole(id->items[4], "the length of a storage")});
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

// The instructions of protocols 2 to 4 that are of use (CPython, Lib/pickletools.py).
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
      push_global(module + "." + line());
      break;
    }
    case 0x93: {  // STACK_GLOBAL
      const auto* const name = pop()->as<std::string>();
      const auto* const module = pop()->as<std::string>();
      if (name == nullptr || module == nullptr) refuse("a name that is no text");
      push_global(*module + "." + *name);
      break;
    }
    case 'R':
      reduce();
      break;
    case 'b':  // BUILD: the attributes of an OrderedDict, such as _metadata, are of no use here
      pop();
      if (top()->as<PickleDict>() == nullptr) refuse("sets attributes of what is no dictionary");
      break;
    case 'Q':
      push_storage();
      break;
    default:
      refuse("the instruction 0x{:02x}, which no state dict needs", static_cast<std::uint8_t>(code));
  }
}

const PickleValue& Unpickler::load(std::span<const std::byte> bytes, std::size_t& used) {
  return Machine(*this, bytes).run(used);
}

}  // namespace retort
