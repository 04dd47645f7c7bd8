// Zip archives as torch.save writes them: entries that are stored, with 64-bit sizes where it takes them (APPNOTE 6.3.3).
//
// The names are taken from the directory at the end as they are, byte for byte: no locale has a say in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace retort {

struct ZipEntry {
  std::string name;
  std::uint16_t method = 0;                    // 0: stored
  std::uint32_t crc = 0;                       // of the content
  std::uint64_t size = 0, packed = 0, at = 0;  // bytes of the content, of what is stored, and where its header begins
};

class ZipFile {
 public:
  // Reads the directory. Throws Error, naming the file, where there is no sound one.
  explicit ZipFile(const std::string& path);

  const std::vector<ZipEntry>& entries() const { return entries_; }  // in the directory's order
  // Throws Error for an entry that is compressed, beyond the file or damaged.
  std::vector<std::byte> read(const ZipEntry& entry);

 private:
  std::vector<std::byte> bytes(std::uint64_t at, std::uint64_t count);
  void read_directory(std::uint64_t at, std::uint64_t size, std::uint64_t count);

  std::string path_;
  std::ifstream in_;
  std::uint64_t file_bytes_ = 0;
  std::vector<ZipEntry> entries_;
};

}  // namespace retort
