#include "engine/file_kind.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string_view>

#include "engine/onnx_file.h"
#include "engine/suggest.h"
#include "engine/torch_file.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLooked = 512;  // bytes from the beginning

struct Magic {
  std::size_t at;
  std::string_view bytes;
  const char* kind;
  const char* advice;
};

constexpr const char* kUnpack = ": unpack it first";
constexpr const char* kPicture = ", where a file of weights belongs: the network is given before the images";
constexpr const char* kNone = ", no file of weights";
constexpr const char* kConvert = ": Retort does not read it; convert the network to ONNX, which it reads";
constexpr const char* kFetch = ": download the file itself";

constexpr Magic kMagics[] = {
    {0, "version https://git-lfs.github.com/spec/",
     "a Git LFS pointer, the text that stands for a file which was not fetched",
     ": run git lfs pull, or download the file itself"},
    {0, {"\x1f\x8b", 2}, "compressed with gzip", kUnpack},
    {0, "BZh", "compressed with bzip2", kUnpack},
    {0, {"\xfd\x37zXZ\0", 6}, "compressed with xz", kUnpack},
    {0, "\x28\xb5\x2f\xfd", "compressed with zstd", kUnpack},
    {0, "7z\xbc\xaf\x27\x1c", "a 7z archive", kUnpack},
    {0, "Rar!\x1a\x07", "a RAR archive", kUnpack},
    {257, "ustar", "a tar archive", kUnpack},
    {0, {"PK\5\6", 4}, "an empty zip archive", kFetch},
    {0, "\x93NUMPY", "an array of NumPy's (.npy), one without a name",
     ": write named ones with safetensors.numpy.save_file(arrays, FILE)"},
    {0, "\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, h5py, MATLAB)",
     ": Retort does not read it; convert the network to ONNX, or write its arrays with "
     "safetensors.numpy.save_file(arrays, FILE)"},
    {0, "\xff\xd8\xff", "a JPEG picture", kPicture},
    {0, "\x89PNG\r\n\x1a\n", "a PNG picture", kPicture},
    {0, "GIF8", "a GIF picture", kPicture},
    {0, {"II*\0", 4}, "a TIFF picture", kPicture},
    {0, {"MM\0*", 4}, "a TIFF picture", kPicture},
    {8, "WEBP", "a WebP picture", kPicture},
    {0, "%PDF-", "a PDF document", kNone},
    {0, "\x7f\x45LF", "a program or a library (ELF)", kNone},
    {0, "GGUF", "a GGUF file", ": Retort does not read it; take the weights as safetensors"},
    {4, "TFL3", "a TensorFlow Lite model", kConvert},
};

std::string_view trimmed_front(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  return text;
}

bool begins_with_word(std::string_view text, std::string_view word) {
  return text.size() >= word.size() && std::equal(word.begin(), word.end(), text.begin(), [](char a, char b) {
           return a == std::tolower(static_cast<unsigned char>(b));
         });
}

std::uint8_t byte_at(std::string_view text, std::size_t at) {
  return at < text.size() ? static_cast<std::uint8_t>(text[at]) : 0;
}

bool is_bitmap(std::string_view first) {
  return first.starts_with("BM") && first.size() > 14 && first.substr(6, 4) == std::string_view("\0\0\0\0", 4);
}

// A protobuf of TensorFlow's: a SavedModel (its version, which is 1, and a graph) or a GraphDef (a list of nodes, each
// with its name first).
bool is_tensorflow(std::string_view first) {
  if (first.starts_with("\x08\x01\x12")) return true;
  if (byte_at(first, 0) != 0x0a) return false;
  std::size_t at = 1;
  while (byte_at(first, at) >= 0x80) ++at;
  const std::size_t length = byte_at(first, at + 2);
  return byte_at(first, at + 1) == 0x0a && length > 0 && length < 0x80 && byte_at(first, at + 3 + length) == 0x12;
}

bool is_pickle(std::string_view first) {
  return byte_at(first, 0) == 0x80 && byte_at(first, 1) >= 2 && byte_at(first, 1) <= 5;
}

bool is_text(std::string_view first) {
  return std::all_of(first.begin(), first.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte >= 0x20 && byte != 0x7f) || std::isspace(byte) != 0;
  });
}

std::string text_kind(std::string_view first) {
  const std::string_view text = trimmed_front(first);
  if (begins_with_word(text, "<!doctype html") || begins_with_word(text, "<html")) {
    return fmt::format("an HTML page, most likely what a server answered in the place of the file{}", kFetch);
  }
  if (text.starts_with('<')) return fmt::format("an XML text, most likely what a server answered{}", kFetch);
  if (text.starts_with('{') && first.find("\"weight_map\"") != std::string_view::npos) {
    return "the index of a network that lies in several files: join them into one with safetensors or PyTorch";
  }
  if (text.starts_with('{') || text.starts_with('[')) return fmt::format("a JSON text{}", kNone);
  return fmt::format("a text, which begins {}{}", in_quotes(text.substr(0, 40)), kNone);
}

bool looks_like_safetensors(std::string_view first) {
  // The length of a header below 2^32, and the header.
  return first.size() > 8 && first.substr(4, 4) == std::string_view("\0\0\0\0", 4) && first[8] == '{';
}

std::string kind_of_folder(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "saved_model.pb", ignored)) return fmt::format("a TensorFlow SavedModel{}", kConvert);
  std::vector<std::string> weights;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string ending = entry.path().extension().string();
    for (const char* known : {".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".onnx"}) {
      if (ending == known && weights.size() < 5) weights.push_back(in_quotes(entry.path().filename().string()));
    }
  }
  std::sort(weights.begin(), weights.end());
  return weights.empty() ? "a folder: give a file of weights"
                         : fmt::format("a folder: give a file in it, such as {}", fmt::join(weights, ", "));
}

}  // namespace

std::string foreign_kind(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return kind_of_folder(path);
  if (!fs::is_regular_file(path, ignored)) return "";
  std::string first(kLooked, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(first.data(), static_cast<std::streamsize>(first.size()));
  first.resize(static_cast<std::size_t>(in.gcount()));
  if (first.empty())
    return in.bad() ? "" : "empty: it has 0 bytes, most likely because a download or a copy did not finish";
  if (is_torch_file(std::as_bytes(std::span(first))) || looks_like_safetensors(first)) return "";
  for (const Magic& magic : kMagics) {
    if (first.size() >= magic.at && std::string_view(first).substr(magic.at).starts_with(magic.bytes)) {
      return fmt::format("{}{}", magic.kind, magic.advice);
    }
  }
  if (is_bitmap(first)) return fmt::format("a BMP picture{}", kPicture);
  if (is_tensorflow(first)) return fmt::format("a TensorFlow graph{}", kConvert);
  if (is_onnx_file(path)) {
    return "an ONNX file, which teachers, ./evaluate and ./predict read; here it takes weights alone (safetensors, or "
           "PyTorch's .pth)";
  }
  if (is_pickle(first)) {
    return "a Python pickle that torch.save did not write: load it in Python and save its tensors with "
           "torch.save(state_dict, FILE)";
  }
  return is_text(first) ? text_kind(first) : "";
}

std::string foreign_kind(const std::vector<ZipEntry>& entries) {
  const auto any = [&](auto holds) { return std::any_of(entries.begin(), entries.end(), holds); };
  const auto has = [&](std::string_view inner) {
    return any([&](const ZipEntry& entry) {
      const std::size_t slash = entry.name.find('/');
      return entry.name == inner ||
             (slash != std::string::npos && std::string_view(entry.name).substr(slash + 1) == inner);
    });
  };
  const auto has_below = [&](std::string_view folder) {
    return any([&](const ZipEntry& entry) { return entry.name.find(folder) != std::string::npos; });
  };
  if (has("constants.pkl") || (has("data.pkl") && has_below("/code/"))) {
    return "a TorchScript program (torch.jit.save), not a state dict: load it in Python with torch.jit.load and save "
           "its weights: torch.save(model.state_dict(), FILE)";
  }
  if (has("data.pkl")) return "";
  if (has("serialized_exported_program.json") || has("archive_format") || has_below("models/model.json")) {
    return "a program of torch.export (.pt2), not a state dict: save the weights: torch.save(model.state_dict(), FILE)";
  }
  if (has("model.weights.h5")) {
    return fmt::format("a Keras model (.keras){}", kConvert);
  }
  const auto is_array = [](const ZipEntry& entry) { return entry.name.ends_with(".npy"); };
  if (!entries.empty() && std::all_of(entries.begin(), entries.end(), is_array)) {
    return "an archive of NumPy arrays (.npz): write them with safetensors.numpy.save_file(dict(numpy.load(FILE)), "
           "OUT)";
  }
  return "a zip archive without data.pkl: not a file of PyTorch's; unpack it if the weights are in it";
}

}  // namespace retort
