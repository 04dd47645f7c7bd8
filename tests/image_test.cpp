// Photographs: what is read equals PIL's pixels, what is resized equals torchvision's, and bad files get one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "data/dataset.h"
#include "data/image_file.h"
#include "data/resize.h"
#include "engine/crc32.h"
#include "tests/support/files.h"

namespace retort {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

const fs::path kFixtures = "tests/fixtures";

std::string crc_of(const Image& image) {
  return fmt::format("{:08x}", crc32(0, image.pixels.data(), image.pixels.size()));
}

// One line of tests/fixtures/images.txt, made with PIL and torchvision by tests/parity/image_parity.py.
struct Expected {
  std::string name, pixels, exact, network, exact_network;
  int width = 0, height = 0;
};

std::vector<Expected> expected_images(bool photographs) {
  std::vector<Expected> all;
  std::ifstream file(kFixtures / "images.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    Expected e;
    in >> e.name >> e.width >> e.height >> e.pixels >> e.exact >> e.network >> e.exact_network;
    if (photographs == (e.name.find('/') != std::string::npos)) all.push_back(e);
  }
  return all;
}

void expect_equal(const Expected& expected, const fs::path& folder) {
  SCOPED_TRACE(expected.name);
  const Image image = read_image_file((folder / expected.name).string());
  EXPECT_EQ(image.width, expected.width);
  EXPECT_EQ(image.height, expected.height);
  EXPECT_EQ(crc_of(image), expected.pixels);
  EXPECT_EQ(crc_of(resized(image, 32, 32)), expected.exact);
  if (!expected.network.empty()) {
    EXPECT_EQ(crc_of(center_cropped(resized_shorter_side(image, 256), 224, 224)), expected.network);
    EXPECT_EQ(crc_of(resized(image, 224, 224)), expected.exact_network);
  }
}

TEST(ImageFile, EveryKindOfJpegAndPngEqualsPil) {
  const std::vector<Expected> all = expected_images(false);
  EXPECT_EQ(all.size(), 18u);
  for (const Expected& expected : all) expect_equal(expected, kFixtures / "images");
}

TEST(ImageFile, PhotographsBecomeTheNetworksInputThatTorchvisionMakes) {
  const fs::path root = dataset_root();
  if (!fs::exists(root / "imagenet_samples_240")) GTEST_SKIP() << root << " has no imagenet_samples_240";
  const std::vector<Expected> all = expected_images(true);
  EXPECT_EQ(all.size(), 240u);
  for (const Expected& expected : all) expect_equal(expected, root);
}

std::string fixture(const std::string& name) {
  return test::read_file((kFixtures / "images" / name).string());
}

TEST(ImageFile, GreyOf16BitsCountsItsUpperHalf) {
  // 2 x 1 pixels, 0x1234 and 0xfedc; made by hand.
  const unsigned char bytes[] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0,  0, 13, 'I', 'H', 'D',
                                 'R',  0,   0,   0,   2,  0,  0,  0,  1, 16, 0, 0,  0,   0};
  std::string file(reinterpret_cast<const char*>(bytes), sizeof bytes);
  const auto big_endian = [](std::uint32_t v) {
    return std::string{static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
                       static_cast<char>(v)};
  };
  file += big_endian(crc32(0, file.data() + 12, 17));
  // A stored block of zlib: one row of filter 0 and four bytes; Adler-32 by its definition.
  const unsigned char row[] = {0, 0x12, 0x34, 0xfe, 0xdc};
  std::uint32_t a = 1, b = 0;
  for (const unsigned char v : row) b += a += v;
  std::string data = std::string("IDAT\x78\x01\x01\x05", 8) + std::string("\0\xfa\xff", 3);
  data += std::string(reinterpret_cast<const char*>(row), 5) + big_endian(b << 16 | a);
  file +=
      big_endian(static_cast<std::uint32_t>(data.size()) - 4) + data + big_endian(crc32(0, data.data(), data.size()));
  file += std::string("\0\0\0\0IEND", 8) + big_endian(crc32(0, "IEND", 4));
  const TemporaryFolder folder;
  const Image image = read_image_file(folder.write("grey16.png", file));
  EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{0x12, 0x12, 0x12, 0xfe, 0xfe, 0xfe}));
}

TEST(ImageFile, WhatIsNoImageGetsOneLine) {
  const TemporaryFolder folder;
  const auto error = [](const std::string& path) { return error_of([&] { read_image_file(path); }); };
  EXPECT_THAT(error(folder / "absent.png"), AllOf(HasSubstr("absent.png"), HasSubstr("no such file")));
  EXPECT_THAT(error(folder.path()), HasSubstr("is not a file"));
  EXPECT_THAT(error(folder.write("empty.png", "")), AllOf(HasSubstr("empty.png"), HasSubstr("is empty")));
  EXPECT_THAT(error(folder.write("a.jpg", "GIF89a....")),
              AllOf(HasSubstr("a.jpg"), HasSubstr("expected a JPEG or PNG")));
  EXPECT_THAT(error(folder.write("b.jpg", "\xff\xd8\xff")), HasSubstr("damaged JPEG"));
  EXPECT_THAT(error(folder.write("b.png", "\x89PNG\r\n\x1a\n")),
              AllOf(HasSubstr("damaged PNG"), HasSubstr("too early")));
  // The format follows from the content.
  EXPECT_EQ(read_image_file(folder.write("png.jpg", fixture("rgb.png"))).width, 53);
}

TEST(ImageFile, WhatIsInAForeignFileIsSaid) {
  using namespace std::string_literals;
  const TemporaryFolder folder;
  const std::pair<std::string, const char*> cases[] = {
      {"RIFF\x24\0\0\0WEBPVP8 "s, "a WebP picture"},
      {"II*\0\x08\0\0\0"s, "a TIFF picture"},
      {"MM\0*\0\0\0\x08"s, "a TIFF picture"},
      {"BM\x36\x0c\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x20\0\0\0\x20\0\0\0"s, "a BMP picture"},
      {"GIF87a\x20\0\x20\0"s, "a GIF picture"},
      {"\0\0\0\x18"
       "ftypheic\0\0\0\0mif1heic"s,
       "a HEIC picture"},
      {"\0\0\0\x1c"
       "ftypavif\0\0\0\0mif1avif"s,
       "an AVIF picture"},
      {"\0\0\0\x18"
       "ftypmif1\0\0\0\0mif1mif1"s,
       "a HEIF picture"},
      {"\0\0\0\x18"
       "ftypisom\0\0\0\0isommp42"s,
       "a film"},
      {"\0\0\0\x0cjP  \r\n\x87\n"s, "a JPEG 2000 picture"},
      {"\xff\x0a\xfa\x1f"s, "a JPEG XL picture"},
      {"%PDF-1.7\n"s, "a PDF document"},
      {"P6\n2 2\n255\n"s, "a Netpbm picture"},
      {"\n<!DOCTYPE HTML><html>404"s, "a web page"},
      {"<?xml version=\"1.0\"?>\n<svg width=\"3\">"s, "an SVG drawing"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00"s, "git lfs pull"},
      {"BM and nothing like a picture behind these letters"s, "neither of the formats"},
      {"\0\0\0"s, "neither of the formats"},
  };
  for (const auto& [bytes, name] : cases) {
    const std::string path = folder.write("photograph.jpg", bytes);
    EXPECT_THAT(error_of([&] { read_image_file(path); }), AllOf(HasSubstr("photograph.jpg: is "), HasSubstr(name)));
  }
  fs::create_symlink("../store/gone.jpg", folder / "link.jpg");
  EXPECT_THAT(error_of([&] { read_image_file(folder / "link.jpg"); }), HasSubstr("link.jpg: is a link to ../store"));
}

TEST(ImageFile, EveryTruncationIsAnError) {
  const TemporaryFolder folder;
  for (const char* name :
       {"420.jpg", "progressive.jpg", "cmyk.jpg", "restart.jpg", "rgb.png", "interlaced.png", "palette.png"}) {
    const std::string whole = fixture(name);
    for (std::size_t length = 3; length + 2 < whole.size(); length += 1 + length / 16) {
      const std::string path = folder.write("cut", whole.substr(0, length));
      EXPECT_THAT(error_of([&] { read_image_file(path); }), HasSubstr(path)) << name << " " << length;
    }
  }
}

TEST(ImageFile, DamageIsAnErrorOrAPictureOfTheSameSize) {
  const TemporaryFolder folder;
  int errors = 0, flips = 0;
  for (const char* name : {"420.jpg", "progressive.jpg", "rgb.png"}) {
    const std::string whole = fixture(name);
    for (std::size_t at = 0; at < whole.size(); at += 7, ++flips) {
      std::string bad = whole;
      bad[at] = static_cast<char>(bad[at] ^ 0x55);
      const std::string path = folder.write("flipped", bad);
      try {
        const Image image = read_image_file(path);
        EXPECT_EQ(image.pixels.size(),
                  3u * static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height));
      } catch (const Error& e) {
        EXPECT_THAT(e.what(), HasSubstr(path));
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, flips / 3);
}

TEST(ImageFile, SizesAreCheckedBeforeMemoryIsTaken) {
  const TemporaryFolder folder;
  std::string png = fixture("rgb.png");
  const auto claim = [&](std::uint32_t width, std::uint32_t height) {
    for (int i = 0; i < 4; ++i) {
      png[static_cast<std::size_t>(16 + i)] = static_cast<char>(width >> (24 - 8 * i));
      png[static_cast<std::size_t>(20 + i)] = static_cast<char>(height >> (24 - 8 * i));
    }
    const std::uint32_t crc = crc32(0, png.data() + 12, 17);
    for (int i = 0; i < 4; ++i) png[static_cast<std::size_t>(29 + i)] = static_cast<char>(crc >> (24 - 8 * i));
    return folder.write("large.png", png);
  };
  const auto error = [](const std::string& path) { return error_of([&] { read_image_file(path); }); };
  EXPECT_THAT(error(claim(16385, 1)), AllOf(HasSubstr("16385 x 1"), HasSubstr("16384")));
  EXPECT_THAT(error(claim(16384, 16384)), HasSubstr("256000000"));
  EXPECT_THAT(error(claim(0x7fffffff, 0x7fffffff)), HasSubstr("large.png"));
  std::string jpeg = fixture("420.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xdc\xff\xdc");  // 65500 x 65500
  EXPECT_THAT(error(folder.write("large.jpg", jpeg)), HasSubstr("65500 x 65500"));
}

// The definition, in f64 and in two dimensions at once: the mean of the pixels under a triangle.
double ideal(const Image& image, int height, int width, int y, int x, int c) {
  const auto weight = [](int i, int in, int out, int o) {
    const double step = static_cast<double>(in) / out, reach = std::max(step, 1.0);
    return std::max(0.0, 1 - std::abs(i + 0.5 - (o + 0.5) * step) / reach);
  };
  double sum = 0, total = 0;
  for (int i = 0; i < image.height; ++i) {
    const double row = weight(i, image.height, height, y);
    for (int j = 0; row > 0 && j < image.width; ++j) {
      const double w = row * weight(j, image.width, width, x);
      sum += w * image.at(i, j)[c];
      total += w;
    }
  }
  return sum / total;
}

TEST(Resize, IsTheMeanUnderATriangle) {
  const Image image = read_image_file((kFixtures / "images" / "rgb.png").string());
  for (const auto& [height, width] : {std::pair{37, 20}, {9, 53}, {64, 64}, {1, 1}, {13, 200}, {32, 32}}) {
    const Image small = resized(image, height, width);
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) {
          // Two roundings to 8 bits, each by half a level.
          EXPECT_NEAR(small.at(y, x)[c], ideal(image, height, width, y, x, c), 1.001) << height << " " << width;
        }
      }
    }
  }
  EXPECT_EQ(resized(image, image.height, image.width).pixels, image.pixels);
}

// Along one axis there is no order to choose.
TEST(Resize, BeginsWithTheColumnsOfImagesThatLoseMoreThanTwiceAsManyRows) {
  const Image image = read_image_file((kFixtures / "images" / "rgb.png").string());  // 53 x 37
  const auto rows_first = [&](int h, int w) { return resized(resized(image, image.height, w), h, w).pixels; };
  const auto columns_first = [&](int h, int w) { return resized(resized(image, h, image.width), h, w).pixels; };
  // The boundary, on both sides: 16 rows and 8 columns less, 17 and 8; and larger images, which lose no columns at all.
  for (const auto& [height, width] : {std::pair{21, 45}, {36, 52}, {38, 100}, {64, 20}, {32, 32}, {37, 20}}) {
    EXPECT_EQ(resized(image, height, width).pixels, rows_first(height, width)) << height << " " << width;
  }
  for (const auto& [height, width] : {std::pair{20, 45}, {9, 40}, {36, 54}, {30, 100}, {1, 53}}) {
    EXPECT_EQ(resized(image, height, width).pixels, columns_first(height, width)) << height << " " << width;
  }
  EXPECT_NE(rows_first(20, 45), columns_first(20, 45));
}

TEST(Resize, KeepsTheProportionAndCutsTheMiddle) {
  Image image{333, 500, std::vector<std::uint8_t>(333 * 500 * 3)};
  const Image wide = resized_shorter_side(image, 256);
  EXPECT_EQ(wide.height, 256);
  EXPECT_EQ(wide.width, 384);  // 384.38
  Image numbered{1, 10, {}};
  for (std::uint8_t v = 0; v < 10; ++v) numbered.pixels.insert(numbered.pixels.end(), 3, v);
  EXPECT_EQ(center_cropped(numbered, 1, 4).pixels[0], 3);
  EXPECT_EQ(center_cropped(numbered, 1, 9).pixels[0], 0);  // 0.5 to the even 0
  EXPECT_EQ(center_cropped(numbered, 1, 7).pixels[0], 2);  // 1.5 to the even 2
  EXPECT_EQ(center_cropped(numbered, 1, 5).pixels[0], 2);  // 2.5 to the even 2
  EXPECT_THAT(error_of([&] { center_cropped(numbered, 1, 11); }), HasSubstr("11 x 1"));
  const Image strip{1, 16384, std::vector<std::uint8_t>(16384 * 3)};
  EXPECT_THAT(error_of([&] { resized_shorter_side(strip, 256); }), HasSubstr("16384 x 1"));
}

}  // namespace
}  // namespace retort
