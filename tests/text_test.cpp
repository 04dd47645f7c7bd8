// Text for terminals: nothing in it can command one, and it is measured in columns, not in bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "distill/console.h"
#include "distill/text_table.h"
#include "engine/json_text.h"

namespace retort {
namespace {

using namespace std::string_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Printable, ControlCharactersAreSpelledOut) {
  EXPECT_EQ(printable("plain ± 日本 😀"), "plain ± 日本 😀");
  EXPECT_EQ(printable("\x1b[2J\x1b]0;title\x07"), "\\x1b[2J\\x1b]0;title\\x07");
  EXPECT_EQ(printable("a\tb\nc\rd\0e\x7f"s), "a\\x09b\\x0ac\\x0dd\\x00e\\x7f");
  EXPECT_EQ(printable("\u009b31m"), "\\u009b31m");  // C1: a terminal takes it for ESC [
  EXPECT_EQ(printable("gnp.\u202eexe\u2028\u2066"), "gnp.\\u202eexe\\u2028\\u2066");
  EXPECT_EQ(printable_lines("a\nb\x1b\n"), "a\nb\\x1b\n");
  EXPECT_EQ(printable(printable("\x1b\xff")), printable("\x1b\xff"));
}

TEST(Printable, WhatIsNoUtf8IsReplaced) {
  EXPECT_EQ(printable("Katze \xe9"), "Katze \uFFFD");
  EXPECT_EQ(printable("\xcf\xe0\xef"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(printable("\xc0\xaf|\xe0\x80\xaf|\xed\xa0\x80|\xf4\x90\x80\x80"),  // overlong, a surrogate, too large
            "\uFFFD\uFFFD|\uFFFD\uFFFD\uFFFD|\uFFFD\uFFFD\uFFFD|\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(printable("cut \xe6\x97"), "cut \uFFFD\uFFFD");
  EXPECT_EQ(valid_utf8("a\nb\x1b\xff"), "a\nb\x1b\uFFFD");
  for (int byte = 0; byte < 256; ++byte) {
    const std::string clean = printable(std::string(1, static_cast<char>(byte)));
    EXPECT_EQ(clean.find_first_of("\x1b\r\n\t\x7f"), std::string::npos) << byte;
    EXPECT_EQ(valid_utf8(clean), clean) << byte;
  }
}

TEST(Printable, FormattingCleansStringsAndLeavesNumbers) {
  const std::string name = "a\x1b[0m";
  EXPECT_EQ(format_printable("{}|{:>9}|{:.2f}|{}", name, name.c_str(), 1.5, 7), "a\\x1b[0m| a\\x1b[0m|1.50|7");
}

TEST(JsonText, NamesThatAreNoUtf8AreReplaced) {
  EXPECT_EQ(json_text(nlohmann::ordered_json{{"caf\xe9", "\xff"}}), "{\"caf\uFFFD\":\"\uFFFD\"}");
}

TEST(Columns, AreCountedPaddedAndCut) {
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("±━…"), 3u);
  EXPECT_EQ(display_width("日本"), 4u);
  EXPECT_EQ(display_width("e\u0301"), 1u);
  EXPECT_EQ(padded("日", 4), "日  ");
  EXPECT_EQ(padded("±", 3, false), "  ±");
  EXPECT_EQ(shortened("resnet56", 8), "resnet56");
  EXPECT_EQ(shortened("resnet56", 5), "resn…");
  EXPECT_EQ(shortened("日本語", 4), "日…");
  EXPECT_EQ(shortened("ab", 0), "");
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(Columns, FoldingLosesNothingAndFits) {
  EXPECT_EQ(folded("one two three", kWhole, 4), "one two three");
  EXPECT_EQ(folded("one two three", 13, 4), "one two three");
  EXPECT_EQ(folded("one two three", 10, 2), "one two\n  three");
  EXPECT_EQ(folded("a\n\nlonger than ten\n", 10, 1), "a\n\nlonger\n than ten\n");
  EXPECT_EQ(folded("abcdefghij", 4, 0), "abcd\nefgh\nij");
  EXPECT_EQ(folded("  日本語日本語", 6, 1), "  日本\n 語日\n 本語");
  EXPECT_EQ(folded(std::string(13, ' ') + "agreement 12 %", 16, 13), "  agreement 12 %");
  const std::string text =
      "worst        a class of a long name 12.5 %, /a/path/that/has/no/blank/in/it/at/all, 日本語 3x";
  std::string letters = text;
  std::erase(letters, ' ');
  for (std::size_t width = 1; width < 100; ++width) {
    std::string kept;
    for (const std::string& line : lines_of(folded(text, width, 13))) {
      EXPECT_LE(display_width(line), std::max<std::size_t>(2, width)) << width;
      kept += line;
    }
    std::erase(kept, ' ');
    EXPECT_EQ(kept, letters) << width;
  }
}

TEST(TextTable, FoldsIntoBlocksThatRepeatTheKeys) {
  const std::vector<std::vector<std::string>> rows{
      {"run", "arch", "epoch", "test %", "started"}, {"one", "resnet8", "4/4", "61.20", "today"}, {"a\x1b", "x"}};
  EXPECT_EQ(text_table(rows, {.words = 2}),
            "run    arch     epoch  test %  started\n"
            "one    resnet8    4/4   61.20    today\n"
            "a\\x1b  x\n");
  EXPECT_EQ(text_table(rows, {.words = 2, .width = 38}), text_table(rows, {.words = 2}));
  EXPECT_EQ(text_table(rows, {.words = 2, .width = 22}),
            "run    arch     epoch\n"
            "one    resnet8    4/4\n"
            "a\\x1b  x\n"
            "\n"
            "run    test %  started\n"
            "one     61.20    today\n"
            "a\\x1b\n");
  EXPECT_THAT(text_table(rows, {.words = 2, .width = 10}), HasSubstr("run    ar…\n"));
  for (std::size_t width = 8; width < 60; ++width) {
    const std::string table = text_table(rows, {.words = 2, .width = width});
    for (const std::string& line : lines_of(table)) EXPECT_LE(display_width(line), width) << table;
  }
}

TEST(CsvField, KeepsBytesAsTheyAre) {
  EXPECT_EQ(csv_field("caf\xe9\x1b"), "caf\xe9\x1b");
  EXPECT_EQ(csv_field("a \"b\", c"), "\"a \"\"b\"\", c\"");
}

TEST(LossText, IsShortWhateverTheLoss) {
  EXPECT_EQ(loss_text(0.37268), "0.3727");
  EXPECT_EQ(loss_text(999999.0), "999999.0000");
  EXPECT_EQ(loss_text(1e240), "1.0000e+240");
  EXPECT_EQ(loss_text(-2.5e9), "-2.5000e+09");
  EXPECT_EQ(loss_text(-std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(loss_text(std::numeric_limits<double>::infinity()), "inf");
}

TEST(ProgressText, FitsEveryWidthAndKeepsTheCount) {
  const Progress usual{"epoch 3/200", 45, 391, true, 1.2345, 812, 249};
  const Progress extreme{"epoch 1000/1000", 123456, 1234567, true, 1e240, 1e7, 360000};
  const Progress begun{"epoch 1/2", 0, 5};
  const Progress empty{"epoch 1/1", 0, 0, true, 0, 0, 0};
  for (const Progress& p : {usual, extreme, begun, empty}) {
    std::size_t before = 0;
    for (std::size_t width = 20; width <= 200; ++width) {
      const std::string text = progress_text(p, width);
      EXPECT_LE(display_width(text), width) << text;
      EXPECT_GE(display_width(text) + 28, before) << text;  // a wider terminal does not show less
      before = std::max(before, display_width(text));
      EXPECT_THAT(text, ::testing::AnyOf(HasSubstr(fmt::format("{}/{}", p.done, p.total)), HasSubstr(" %")));
    }
  }
  EXPECT_EQ(progress_text(usual, 119),
            "epoch 3/200 ━━━───────────────────────── 45/391  loss 1.2345  812 images/s  4 min 09 s left");
  EXPECT_EQ(progress_text(usual, 79),
            "epoch 3/200 ━─────────────── 45/391  loss 1.2345  812 images/s  4 min 09 s left");
  EXPECT_EQ(progress_text(usual, 58), "epoch 3/200 ━──────── 45/391  loss 1.2345  4 min 09 s left");
  EXPECT_EQ(progress_text(usual, 39), "epoch 3/200 45/391  4 min 09 s left");
  EXPECT_EQ(progress_text(usual, 19), "epoch 3/200 45/391");
  EXPECT_EQ(progress_text(extreme, 19), "epoch 1000/1000 9 %");
  EXPECT_EQ(progress_text(extreme, 16), "123456/1234567");
  EXPECT_EQ(progress_text(usual, kWhole), "epoch 3/200 45/391  loss 1.2345  812 images/s  4 min 09 s left");
  EXPECT_EQ(progress_text(begun, 30), "epoch 1/2 ──────────────── 0/5");
}

}  // namespace
}  // namespace retort
