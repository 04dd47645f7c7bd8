// CRC-32 as in zip, PNG and zlib (polynomial 0x04C11DB7 reflected), eight bytes a turn (Kounavis & Berry 2005).
#pragma once

#include <cstddef>
#include <cstdint>

namespace retort {

// Continues from `crc`, the value for what came before; 0 at the beginning.
std::uint32_t crc32(std::uint32_t crc, const void* data, std::size_t bytes);

}  // namespace retort
