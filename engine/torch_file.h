// State dicts that PyTorch has saved (.pth, .pt, .th): the zip format of 1.6 and later, and the older one.
//
// The file's pickle is read by engine/unpickler.h, which calls nothing: a file cannot make this program run code.
// The state dict may be the whole file or lie in a dictionary under "state_dict", "model_state_dict", "model", "net" or
// "params"; whatever else lies beside it is left alone. The prefixes "module.", "model." and "_orig_mod." (data
// parallelism, wrappers, torch.compile) go where all names have them.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "engine/weight_file.h"

namespace retort {

// Whether a file that begins with these bytes is one of PyTorch's.
bool is_torch_file(std::span<const std::byte> first_bytes);

// Throws Error, one line naming the file and where in it, for anything that is not a whole, sound state dict. F16
// becomes f32; i16, i8 become i32, bool u8.
WeightFile read_torch_file(const std::string& path);

}  // namespace retort
