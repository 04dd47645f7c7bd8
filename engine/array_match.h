// Which array of a file is which of a network's: the one reader of names, for whatever is loaded into a network.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/weight_file.h"

namespace retort {

struct WantedArray {
  std::string name;
  std::vector<std::int64_t> shape;  // as files have it
};

struct ArrayMatch {
  std::unordered_map<std::string, const NamedArray*> found;  // by the network's names
  std::vector<std::string> missing;                          // in the network, not in the file; bookkeeping may be
  std::vector<std::string> unexpected;   // in the file, and part of a network of this kind, but not of this one; where
                                         // something is missing, all else that the file has
  std::vector<std::string> passed_over;  // in the file, and nothing that such a network has
  std::string note;                      // about what was passed over, or ""
};

// By name, translated by engine/weight_names.h, and shape. Names that begin with one of `skip` are neither looked for
// nor counted among the rest. In a file of ours (WeightFile::ours) nothing is passed over. Throws Error, one line with
// the file, where an array has another shape or an unreadable type, and where two could be the same one.
ArrayMatch match_arrays(const WeightFile& file, const std::vector<WantedArray>& wanted,
                        const std::vector<std::string>& skip = {});

// "; 2 missing (a, b); 1 unexpected (c); nearest to "a" is "c"", or "" where all fits.
std::string misfit_text(const WeightFile& file, const std::vector<WantedArray>& wanted, const ArrayMatch& match);

}  // namespace retort
