// How much memory can still be had, so that what does not fit is refused before anything is allocated.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "kernels/types.h"

namespace retort::kernels {

// Bytes that this process can still allocate on `device`; never less than there are. On a GPU what its driver calls
// free; nothing where there is no driver. On the CPU the least of what the machine has (Linux's MemAvailable, with swap),
// what the control group leaves (versions 1 and 2), and what `ulimit -v` leaves; nothing where none of them says.
std::optional<std::size_t> available_memory(Device device);

// The value of the line "<name> N", or of "<name>: N kB", of a text such as /proc/meminfo; in bytes.
std::optional<std::size_t> named_bytes(const std::string& text, const std::string& name);

std::size_t available_cuda_memory(int device);  // of kernels/cuda, or of what stands in for it

}  // namespace retort::kernels
