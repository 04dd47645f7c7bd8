// The nearest known word, for error messages: `unknown key "momentun"; did you mean "momentum"?`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace retort {

// The candidate with the smallest edit distance (insertions, deletions, replacements, swaps of neighbours; upper and
// lower case count as equal), the first of equals; "" when none is near enough to be what was meant.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// `; did you mean "momentum"?`, or "" when nothing is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

// The text in double quotes, on one line and not too long, whatever bytes it holds.
std::string in_quotes(std::string_view text);

}  // namespace retort
