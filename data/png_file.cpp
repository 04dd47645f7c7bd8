// libpng reports errors by longjmp. So whatever has a destructor lives outside of the function that setjmp is in.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "data/image_codecs.h"

namespace retort {
namespace {

constexpr png_alloc_size_t kLargestChunk = 8 << 20;  // bytes of one ancillary chunk
constexpr int kMostChunks = 1000;                    // ancillary chunks that are kept

class Decoder {
 public:
  explicit Decoder(std::span<const std::uint8_t> file) : rest_(file) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    info_ = png_ == nullptr ? nullptr : png_create_info_struct(png_);
    if (info_ == nullptr) return;
    png_set_read_fn(png_, this, read);
  }
  ~Decoder() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // After it, rows are RGB or grey of 8 bits.
  bool read_header(const ImageLimits& limits) {
    if (info_ == nullptr) return false;
    return guarded([&] {
      // One more than allowed, so that a size beyond the limits gets its own error.
      const auto side = static_cast<png_uint_32>(std::min<std::int64_t>(limits.side, PNG_UINT_31_MAX - 1));
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
      png_set_chunk_malloc_max(png_, kLargestChunk);
      png_set_chunk_cache_max(png_, kMostChunks);
      png_read_info(png_, info_);
      height = png_get_image_height(png_, info_);
      width = png_get_image_width(png_, info_);
      if (height > side || width > side) return;  // refused by the caller, before memory is taken
      const int color = png_get_color_type(png_, info_);
      png_set_strip_16(png_);
      if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);
      if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png_);
      png_set_strip_alpha(png_);
      png_set_gray_to_rgb(png_);
      png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
      row_bytes = png_get_rowbytes(png_, info_);
    });
  }

  // Into `pixels`, height rows of row_bytes; `rows` has room for a pointer to each.
  bool read_rows(std::uint8_t* pixels, std::uint8_t** rows) {
    return guarded([&] {
      for (std::size_t y = 0; y < height; ++y) rows[y] = pixels + y * row_bytes;
      png_read_image(png_, rows);
      png_read_end(png_, nullptr);
    });
  }

  const char* text() const { return text_; }
  std::size_t height = 0, width = 0, row_bytes = 0;

 private:
  static void on_error(png_structp png, png_const_charp message) {
    auto* const self = static_cast<Decoder*>(png_get_error_ptr(png));
    std::snprintf(self->text_, sizeof self->text_, "%s", message);
    std::longjmp(self->back_, 1);
  }
  static void read(png_structp png, png_bytep to, std::size_t bytes) {
    auto* const self = static_cast<Decoder*>(png_get_io_ptr(png));
    if (bytes > self->rest_.size()) png_error(png, "the file ends too early");
    std::memcpy(to, self->rest_.data(), bytes);
    self->rest_ = self->rest_.subspan(bytes);
  }

  // False where `work` ended in an error, which text() then tells. `work` leaves nothing to destroy.
  template <typename Work>
  bool guarded(const Work& work) {
    if (setjmp(back_) != 0) return false;
    work();
    return true;
  }

  std::span<const std::uint8_t> rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf back_;
  char text_[128] = "libpng cannot start";
};

}  // namespace

bool is_png(std::span<const std::uint8_t> file) {
  return file.size() >= 8 && png_sig_cmp(file.data(), 0, 8) == 0;
}

Image decode_png(std::span<const std::uint8_t> file, const std::string& path, const ImageLimits& limits) {
  Decoder decoder(file);
  check(decoder.read_header(limits), "{}: damaged PNG: {}", path, decoder.text());
  Image image =
      blank_image(static_cast<std::int64_t>(decoder.height), static_cast<std::int64_t>(decoder.width), path, limits);
  check(decoder.row_bytes == 3 * decoder.width, "{}: a PNG whose rows have {} bytes for {} pixels", path,
        decoder.row_bytes, decoder.width);
  std::vector<std::uint8_t*> rows(decoder.height);
  check(decoder.read_rows(image.pixels.data(), rows.data()), "{}: damaged PNG: {}", path, decoder.text());
  return image;
}

}  // namespace retort
