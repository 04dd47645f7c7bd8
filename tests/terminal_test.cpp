// What a run shows while it lives: one bar on any terminal, plain lines in a pipe.
#include "engine/terminal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <thread>

#include "distill/console.h"
#include "tests/support/program_test.h"

namespace retort {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kBetweenDraws = std::chrono::milliseconds(110);

// All that `work` prints, in a process of its own whose standard output is a terminal.
template <typename Work>
std::string printed_on_terminal(unsigned short columns, const char* term, const Work& work) {
  winsize size{};
  size.ws_col = columns;
  size.ws_row = 30;
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    unsetenv("COLUMNS");
    if (term != nullptr) {
      setenv("TERM", term, 1);
    } else {
      unsetenv("TERM");
    }
    work();
    _exit(0);
  }
  std::string out;
  std::array<char, 4096> part;
  for (ssize_t n = 0; (n = read(terminal, part.data(), part.size())) > 0;)
    out.append(part.data(), static_cast<std::size_t>(n));
  close(terminal);
  waitpid(child, nullptr, 0);
  return out;
}

void set_columns(unsigned short columns) {
  winsize size{};
  size.ws_col = columns;
  size.ws_row = 30;
  ioctl(STDOUT_FILENO, TIOCSWINSZ, &size);
}

void advance_slowly(Console& console) {
  std::this_thread::sleep_for(kBetweenDraws);
  console.advance_progress(1.25, 64);
}

TEST(ConsoleOnATerminal, TheBarFitsAndFollowsEveryResize) {
  const std::array<unsigned short, 7> widths{20, 33, 40, 80, 120, 200, 40};
  const std::string out = printed_on_terminal(80, "xterm", [&] {
    Console console;
    console.begin_progress("epoch 1/200", 391, 0);
    for (const unsigned short width : widths) {
      set_columns(width);
      std::printf("<%d>", width);
      advance_slowly(console);
    }
    console.end_progress();
    console.print("ended");
  });
  for (const unsigned short width : widths) {
    const std::size_t at = out.find(fmt::format("<{}>", width));
    ASSERT_NE(at, std::string::npos) << out;
    std::string drawn = out.substr(out.find('>', at) + 1);
    drawn = drawn.substr(0, drawn.find('<'));
    if (const std::size_t end = drawn.find("\x1b[K"); end != std::string::npos) drawn = drawn.substr(end + 3);
    drawn = drawn.substr(0, drawn.find('\r'));
    EXPECT_THAT(drawn, HasSubstr("/391")) << width;
    EXPECT_LT(display_width(drawn), width) << drawn;
  }
  // From 200 columns to 40: a bar of 92 columns had become three rows, the cursor is on the last of them.
  EXPECT_THAT(out, HasSubstr("\r\x1b[2A\x1b[J"));
  EXPECT_THAT(out, ::testing::EndsWith("\r\x1b[Kended\r\n"));
}

TEST(ConsoleOnATerminal, LinesAreFoldedAndTheLogIsNot) {
  const test::TemporaryFolder folder;
  const std::string line = "epoch   1/200  train loss 4.0245 top-1  9.12 %  validation loss 3.7001 top-1 11.00 %";
  const std::string out = printed_on_terminal(40, "xterm", [&] {
    Console console(folder / "log.txt");
    console.line(line);
    console.print("a {} b", "\x1b[31m");
  });
  std::istringstream lines(out);
  for (std::string row; std::getline(lines, row);) EXPECT_LE(display_width(row.substr(0, row.find('\r'))), 40u) << row;
  EXPECT_THAT(out, HasSubstr("a \\x1b[31m b"));
  EXPECT_EQ(test::read_file(folder / "log.txt"), line + "\na \\x1b[31m b\n");
}

TEST(ConsoleOnATerminal, OneThatCannotRedrawGetsPlainLines) {
  for (const char* term : {"dumb", "", static_cast<const char*>(nullptr)}) {
    const std::string out = printed_on_terminal(80, term, [] {
      Console console("", std::chrono::milliseconds(1));
      console.begin_progress("epoch 1/2", 5, 0);
      advance_slowly(console);
      console.end_progress();
    });
    EXPECT_THAT(out, ContainsRegex("^epoch 1/2 1/5  loss 1.2500  [0-9]+ images/s  .* left\r\n$"));
    EXPECT_EQ(out.find('\x1b'), std::string::npos);
  }
}

TEST(ConsoleInAPipe, SaysThatItLivesWhenItWasQuietForLong) {
  testing::internal::CaptureStdout();
  {
    Console console("", std::chrono::milliseconds(50));
    console.begin_progress("epoch 2/3", 100, 10);
    for (int i = 0; i < 20; ++i) console.advance_progress(0.5, 64);  // at once: nothing to say
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    console.advance_progress(0.5, 64);
    console.advance_progress(0.5, 64);
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    console.line("something else");
    console.advance_progress(0.5, 64);  // which tells that it lives too
    console.end_progress();
  }
  EXPECT_THAT(testing::internal::GetCapturedStdout(),
              ContainsRegex("^epoch 2/3 31/100  loss 0.5000  [0-9]+ images/s  [0-9.]+ s left\nsomething else\n$"));
}

TEST(OutputWidth, IsTheTerminalsAndColumnsCountsOnlyWhereThatIsUnknown) {
  const auto width = [](unsigned short columns, const char* variable) {
    return printed_on_terminal(columns, "xterm", [&] {
      setenv("COLUMNS", variable, 1);
      std::printf("%zu", output_width());
      std::fflush(stdout);
    });
  };
  EXPECT_EQ(width(57, "99"), "57");
  EXPECT_EQ(width(0, "99"), "99");
  EXPECT_EQ(width(0, "many"), "80");
  testing::internal::CaptureStdout();
  EXPECT_EQ(output_width(), kWhole);
  testing::internal::GetCapturedStdout();
}

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string out;
  std::array<char, 4096> part;
  for (std::size_t n = 0; (n = fread(part.data(), 1, part.size(), pipe.get())) > 0;) out.append(part.data(), n);
  return out;
}

class InTmux : public test::TinyRunTest {
 protected:
  void TearDown() override {
    if (started_) output_of(tmux("kill-server"));
  }

  std::string tmux(const std::string& command) const {
    return "cd " + folder_.string() + " && env -u TMUX -u COLUMNS LC_ALL=C.UTF-8 TMUX_TMPDIR=" + folder_.string() +
           " tmux -u -f /dev/null " + command + " 2>&1";
  }

  // The rows that the terminal shows once `wanted` redraws had time to happen.
  std::vector<std::string> rows_after(int redraws) const {
    std::this_thread::sleep_for(redraws * kBetweenDraws);
    std::vector<std::string> rows;
    std::istringstream shown(output_of(tmux("capture-pane -p")));
    for (std::string row; std::getline(shown, row);) rows.push_back(row);
    return rows;
  }

  bool started_ = false;
};

TEST_F(InTmux, ARunShowsOneBarAtAnyWidth) {
  if (output_of("command -v tmux").empty()) GTEST_SKIP() << "tmux is not installed (tools/setup.sh does that)";
  const std::string run = test::program_path("train") + " " + config().string() +
                          " --set data.fraction=1.0 --set train.epochs=100 --set train.evaluate_test=false";
  const std::string answer = output_of(tmux("new-session -d -x 120 -y 30 'env OMP_NUM_THREADS=1 " + run + "'"));
  ASSERT_EQ(answer, "");
  started_ = true;
  const auto is_bar = [](const std::string& row) {
    return row.starts_with("epoch 1/100 ") && row.find("/311") != row.npos;
  };
  const auto bars = [&](const std::vector<std::string>& rows) {
    return std::count_if(rows.begin(), rows.end(), is_bar);
  };
  std::vector<std::string> rows = rows_after(1);
  for (int i = 0; i < 300 && bars(rows) == 0; ++i) rows = rows_after(1);
  for (const int width : {120, 80, 40}) {
    if (width != 120) output_of(tmux("resize-window -x " + std::to_string(width) + " -y 30"));
    rows = rows_after(8);
    EXPECT_EQ(bars(rows), 1) << width << ::testing::PrintToString(rows);
    const auto filled = std::count_if(rows.begin(), rows.end(), [](const std::string& row) { return !row.empty(); });
    EXPECT_LE(filled, width == 40 ? 9 : 5)
        << ::testing::PrintToString(rows);  // two lines about the run, folded, and the bar
  }
}

}  // namespace
}  // namespace retort
