#include "data/image_file.h"
#include "data/resize.h"
#include "kernels/error.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const retort::fuzz::MemoryFile file(data, size);
  try {
    // Pictures as large as they may be would take all the time.
    retort::resized(retort::read_image_file(file.path(), {.side = 1024, .pixels = 1 << 18}), 16, 16);
  } catch (const retort::Error&) {
  }
  return 0;
}
