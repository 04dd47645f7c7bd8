#include "engine/torch_file.h"
#include "kernels/error.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const retort::fuzz::MemoryFile file(data, size);
  try {
    retort::read_torch_file(file.path());
  } catch (const retort::Error&) {
  }
  return 0;
}
