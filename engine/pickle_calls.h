// What comes of the calls that a pickle asks for, without calling anything: a few names build dictionaries, sizes,
// storages and tensors, with a meaning of our own; everything else becomes a PickleObject, which holds nothing but its
// name.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/unpickler.h"

namespace retort {

// "FloatStorage" of "torch.FloatStorage"; none of a name that is no storage's.
std::optional<std::string> storage_type(std::string_view global);

// `callee` called with these arguments. `where` begins the messages. Throws Error where the arguments are not those of
// the few names that have a meaning.
PickleValue called(const std::string& where, const PickleValue& callee, const PickleList& arguments);

// The storage that such a persistent id stands for: ("storage", torch.FloatStorage, key, location, count) and in older
// files a view of another storage, or None. An id of another kind, such as ("module", class, file, source), is an
// object.
PickleValue stored(const std::string& where, const PickleValue& id);

}  // namespace retort
