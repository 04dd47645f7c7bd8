// Python's pickle, as far as PyTorch's state dicts need it, and no further.
//
// A pickle is a program for a stack machine that may ask for any Python callable. Here nothing is ever called: a few
// names (engine/pickle_calls.h) build dictionaries, sizes, storages and tensors, and whatever any other name would have
// made is an inert value that only knows that name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace retort {

struct PickleValue;

struct PickleGlobal {
  std::string name;    // "collections.OrderedDict"
  std::size_t at = 0;  // the byte of the pickle that asked for it
};

// What a name that has no meaning here would have made: an argparse.Namespace, a NumPy number, a whole model.
struct PickleObject {
  std::string name;
  std::size_t at = 0;
};

// A run of elements that lies elsewhere in the file.
struct PickleStorage {
  std::string type;  // "FloatStorage"
  std::string key;
  std::int64_t count = 0;  // elements
};

struct PickleTensor {
  PickleStorage storage;
  std::int64_t offset = 0;  // elements, as are the strides
  std::vector<std::int64_t> shape, strides;
};

struct PickleList {  // a list, a tuple or a set
  std::vector<const PickleValue*> items;
};

struct PickleDict {  // in the order of insertion; a repeated key stays twice
  std::vector<std::pair<const PickleValue*, const PickleValue*>> items;
};

struct PickleBytes {
  std::string bytes;
};

struct PickleBig {};  // an integer beyond 64 bits

struct PickleValue {
  std::variant<std::monostate, bool, std::int64_t, double, std::string, PickleBytes, PickleBig, PickleList, PickleDict,
               PickleGlobal, PickleObject, PickleStorage, PickleTensor>
      value;

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&value);
  }
};

// Owns what it has read, so that neither a deep nor a cyclic structure is trouble.
class Unpickler {
 public:
  // `where` begins the messages: the file and, in an archive, the entry.
  explicit Unpickler(std::string where) : where_(std::move(where)) {}

  // Runs one pickle from the front of `bytes` and returns its value, valid as long as this object. `used` is its
  // length. Throws Error, naming the byte, for anything that is not a whole pickle.
  const PickleValue& load(std::span<const std::byte> bytes, std::size_t& used);

  // All values of the pickles so far, in the order in which they were made.
  const std::deque<PickleValue>& values() const { return values_; }

 private:
  class Machine;

  std::string where_;
  std::deque<PickleValue> values_;
};

}  // namespace retort
