// State dicts that PyTorch has saved (.pth, .pt, .th): the zip format of 1.6 and later, and the older one.
//
// The file's pickle is read by engine/unpickler.h, which calls nothing: a file cannot make this program run code. What
// Python would have made of it beside the weights - options, numbers of NumPy's - is left alone.
// The state dict may be the whole file or lie in a dictionary under "state_dict", "model_state_dict", "model", "net",
// "params" or "student", or under the only key that has tensors. Names stay as they are (engine/weight_names.h).
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "engine/weight_file.h"

namespace retort {

// Whether a file that begins with these bytes is one of PyTorch's.
bool is_torch_file(std::span<const std::byte> first_bytes);

// Throws Error, one line naming the file and where in it, for anything that is not a whole, sound state dict. F16
// becomes f32; i16, i8 become i32, bool u8; other types and objects are WeightFile::unread.
WeightFile read_torch_file(const std::string& path);

}  // namespace retort
