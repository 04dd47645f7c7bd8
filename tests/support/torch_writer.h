// PyTorch's files, written byte by byte.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/files.h"

namespace retort::test {

// Writes the instructions of a pickle, as CPython's pickletools names them.
class Pickle {
 public:
  Pickle() { code("\x80\x02"); }

  Pickle& code(std::string_view bytes) {
    text_ += bytes;
    return *this;
  }
  Pickle& text(const std::string& value) {
    text_ += 'X';
    return little<std::uint32_t>(static_cast<std::uint32_t>(value.size())).code(value);
  }
  Pickle& number(std::int32_t value) {
    text_ += 'J';
    return little(value);
  }
  Pickle& name(const std::string& module, const std::string& attribute) {
    return code("c" + module + "\n" + attribute + "\n");
  }
  Pickle& numbers(const std::vector<std::int32_t>& values) {
    code("(");
    for (const std::int32_t value : values) number(value);
    return code("t");
  }
  // The key of a dictionary and a tensor.
  Pickle& tensor(const std::string& key, const std::string& type, const std::string& storage, std::int32_t count,
                 std::int32_t offset, const std::vector<std::int32_t>& shape,
                 const std::vector<std::int32_t>& strides) {
    text(key).name("torch._utils", "_rebuild_tensor_v2").code("((").text("storage").name("torch", type);
    text(storage).text("cpu").number(count);
    if (old_) code("N");
    code("tQ").number(offset).numbers(shape).numbers(strides);
    return code("\x89").name("collections", "OrderedDict").code(")RtR");
  }
  Pickle& old(bool on) {
    old_ = on;
    return *this;
  }
  std::string done() const { return text_ + "."; }

 private:
  template <typename T>
  Pickle& little(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }

  std::string text_;
  bool old_ = false;
};

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

using Storages = std::vector<std::pair<std::string, std::string>>;  // key, bytes

inline void write_entries(const std::string& path, const Storages& entries, const char* compression = "store",
                          const std::string& folder = "archive") {
  archive* const zip = archive_write_new();
  ASSERT_EQ(archive_write_set_format_zip(zip), ARCHIVE_OK);
  ASSERT_EQ(archive_write_set_format_option(zip, "zip", "compression", compression), ARCHIVE_OK);
  ASSERT_EQ(archive_write_open_filename(zip, path.c_str()), ARCHIVE_OK);
  for (const auto& [name, bytes] : entries) {
    archive_entry* const entry = archive_entry_new();
    archive_entry_set_pathname(entry, (folder + "/" + name).c_str());
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_size(entry, static_cast<la_int64_t>(bytes.size()));
    ASSERT_EQ(archive_write_header(zip, entry), ARCHIVE_OK);
    ASSERT_EQ(archive_write_data(zip, bytes.data(), bytes.size()), static_cast<la_ssize_t>(bytes.size()));
    archive_entry_free(entry);
  }
  ASSERT_EQ(archive_write_free(zip), ARCHIVE_OK);
}

// The format of 1.6 and later.
inline void write_new(const std::string& path, const std::string& pickle, const Storages& storages) {
  Storages entries{{"data.pkl", pickle}, {"byteorder", "little"}};
  for (const auto& [key, bytes] : storages) entries.emplace_back("data/" + key, bytes);
  write_entries(path, entries);
}

// The older format. `width`: bytes of an element of every storage.
inline void write_old(const std::string& path, const std::string& pickle, const Storages& storages, std::size_t width) {
  std::string file("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", 15);
  file += Pickle().number(1001).done() + Pickle().code("}").done() + pickle;
  Pickle keys;
  keys.code("](");
  for (const auto& storage : storages) keys.text(storage.first);
  file += keys.code("e").done();
  for (const auto& [key, bytes] : storages) {
    file += bytes_of(std::vector<std::int64_t>{static_cast<std::int64_t>(bytes.size() / width)}) + bytes;
  }
  write_file(path, file);
}

}  // namespace retort::test
