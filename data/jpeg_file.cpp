// libjpeg reports errors by longjmp. So whatever has a destructor lives outside of the function that setjmp is in.
#include <csetjmp>
#include <cstdio>
#include <cstring>

// jpeglib.h needs <cstdio>.
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "data/image_codecs.h"

namespace retort {
namespace {

// A file made of nothing but scans costs a pass over the picture for each; real ones have about ten.
constexpr int kMostScans = 200;

class Decoder {
 public:
  explicit Decoder(std::span<const std::uint8_t> file) {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = [](j_common_ptr info) {
      auto* const errors = reinterpret_cast<Errors*>(info->err);
      info->err->format_message(info, errors->text);
      std::longjmp(errors->back, 1);
    };
    errors_.base.emit_message = [](j_common_ptr info, int level) {
      if (level < 0 && is_damage(info->err->msg_code)) info->err->error_exit(info);
    };
    progress_.progress_monitor = [](j_common_ptr info) {
      if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMostScans) return;
      auto* const errors = reinterpret_cast<Errors*>(info->err);
      std::snprintf(errors->text, sizeof errors->text, "more than %d scans", kMostScans);
      std::longjmp(errors->back, 1);
    };
    created_ = guarded([&] {
      jpeg_create_decompress(&info_);
      info_.progress = &progress_;
      jpeg_mem_src(&info_, file.data(), static_cast<unsigned long>(file.size()));
    });
  }
  ~Decoder() { jpeg_destroy_decompress(&info_); }  // does no harm to what was not created: all zero
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  bool read_header() {
    return created_ && guarded([&] {
             jpeg_read_header(&info_, TRUE);
             const bool four = info_.num_components == 4;
             info_.out_color_space = four ? JCS_CMYK : info_.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
             jpeg_calc_output_dimensions(&info_);
           });
  }
  std::int64_t height() const { return info_.output_height; }
  std::int64_t width() const { return info_.output_width; }
  int channels() const { return info_.out_color_components; }

  // After read_header(). `row` has width() * channels() bytes; use(y) sees each filled in turn and must not throw.
  template <typename Use>
  bool read_rows(std::uint8_t* row, const Use& use) {
    return guarded([&] {
      jpeg_start_decompress(&info_);
      while (info_.output_scanline < info_.output_height) {
        JSAMPROW rows[] = {row};
        const JDIMENSION y = info_.output_scanline;
        jpeg_read_scanlines(&info_, rows, 1);
        use(y);
      }
      jpeg_finish_decompress(&info_);
    });
  }

  const char* text() const { return errors_.text; }

 private:
  struct Errors {
    jpeg_error_mgr base;  // first, so that a pointer to it is one to all of it
    std::jmp_buf back;
    char text[JMSG_LENGTH_MAX];
  };

  // What libjpeg would go on from with made-up pixels. Its other warnings are about harmless oddities.
  static bool is_damage(int code) {
    return code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC ||
           code == JWRN_ARITH_BAD_CODE;
  }

  // False where `work` ended in an error, which text() then tells. `work` leaves nothing to destroy.
  template <typename Work>
  bool guarded(const Work& work) {
    if (setjmp(errors_.back) != 0) return false;
    work();
    return true;
  }

  jpeg_decompress_struct info_{};
  jpeg_progress_mgr progress_{};
  Errors errors_{};
  bool created_ = false;
};

// a b / 255, rounded.
int product(int a, int b) {
  const int t = a * b + 128;
  return (t + (t >> 8)) >> 8;
}

void to_rgb(const std::uint8_t* row, int channels, int width, std::uint8_t* rgb) {
  if (channels == 3) {
    std::memcpy(rgb, row, 3 * static_cast<std::size_t>(width));
    return;
  }
  for (int x = 0; x < width; ++x, rgb += 3) {
    if (channels == 1) {
      rgb[0] = rgb[1] = rgb[2] = row[x];
      continue;
    }
    // Inverted CMYK: each sample says how much of the ink is missing.
    const std::uint8_t* const inks = row + 4 * x;
    for (int c = 0; c < 3; ++c) {
      const int light = inks[3] - product(255 - inks[c], inks[3]);
      rgb[c] = static_cast<std::uint8_t>(light < 0 ? 0 : light);
    }
  }
}

}  // namespace

bool is_jpeg(std::span<const std::uint8_t> file) {
  return file.size() >= 3 && file[0] == 0xff && file[1] == 0xd8 && file[2] == 0xff;
}

Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& path, const ImageLimits& limits) {
  Decoder decoder(file);
  check(decoder.read_header(), "{}: damaged JPEG: {}", path, decoder.text());
  const int channels = decoder.channels();
  check(channels == 1 || channels == 3 || channels == 4, "{}: a JPEG of {} channels, expected 1, 3 or 4", path,
        channels);
  Image image = blank_image(decoder.height(), decoder.width(), path, limits);
  std::vector<std::uint8_t> row(static_cast<std::size_t>(image.width) * static_cast<std::size_t>(channels));
  const bool whole = decoder.read_rows(row.data(), [&](std::size_t y) {
    to_rgb(row.data(), channels, image.width, image.pixels.data() + y * 3 * static_cast<std::size_t>(image.width));
  });
  check(whole, "{}: damaged JPEG: {}", path, decoder.text());
  return image;
}

}  // namespace retort
