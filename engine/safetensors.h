// Safetensors files: an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and
// the arrays' bytes without gaps (https://github.com/huggingface/safetensors, "Format").
//
// Files written here carry the metadata "retort.format" and "retort.crc32". The checksum covers the whole file, header
// included, so that a single flipped byte is refused. A file without these two keys is somebody else's and is read
// after the structural checks alone.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/weight_file.h"

namespace retort {

// Throws Error, one line naming the file and the byte, for anything that is not a whole, sound file. F16 becomes f32;
// arrays of other types than FileType are WeightFile::unread.
WeightFile read_safetensors(const std::string& path);

// Only the metadata; reads and checks the whole header but none of the data.
std::map<std::string, std::string> read_safetensors_metadata(const std::string& path);

// Atomic (engine/atomic_file.h). Throws Error for a duplicate name or bytes that do not fit the shape.
void write_safetensors(const std::string& path, const std::vector<NamedArray>& arrays,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace retort
