// Words that other tools' files use in their own way, under the keys that our metadata have: "arch", "classes", "stem",
// "shortcut". They are passed over with a note, so that they neither win over what a user says nor refuse a file.
#pragma once

#include <cstdint>
#include <string>

#include "engine/weight_file.h"

namespace retort {

// Takes out of a foreign file's metadata what is none of our words, and what says something else than the user does;
// "" stands for what the user does not say. Files of ours (WeightFile::ours) stay as they are.
void pass_over_foreign_words(WeightFile& file, const std::string& arch, const std::string& stem,
                             const std::string& shortcut);

// The same of "classes", where the last layer tells so many.
void pass_over_foreign_classes(WeightFile& file, std::int64_t classes);

}  // namespace retort
