// Ctrl-C and its like for programs that train. The first SIGINT or SIGTERM asks the work in progress to be the last, the
// second says what a third would lose, the third ends the program. SIGHUP asks too, however often it comes: a terminal
// that closes sends several.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace retort::tools {

// Lock-free atomics are what a signal handler may write and threads may read.
inline std::atomic<int> interrupts{0};
inline std::atomic<bool> hung_up{false};
inline std::atomic<bool> on_terminal{false};

inline bool stop_requested() {
  return interrupts.load() > 0 || hung_up.load();
}

// In a handler nothing but write(2) may speak. On a terminal the line must not begin behind "^C" or a progress bar.
inline void say_at_once(const char* line) {
  if (on_terminal.load()) (void)!::write(STDERR_FILENO, "\n", 1);
  (void)!::write(STDERR_FILENO, line, std::strlen(line));
}

inline void on_interrupt(int signal) {
  const int error = errno;
  if (signal == SIGHUP) {
    hung_up.store(true);
  } else if (const int earlier = interrupts.fetch_add(1); earlier == 0) {
    say_at_once("stopping: finishing the step, then saving\n");
  } else if (earlier == 1) {
    say_at_once(
        "still finishing the step; a third time ends at once, and what was trained since the state was last saved (at "
        "the end of an epoch, or every [train] checkpoint_minutes) is lost\n");
  } else {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  errno = error;
}

inline void catch_interrupts() {
  on_terminal.store(isatty(STDERR_FILENO) == 1);
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  // nohup has it ignored, and means it.
  if (std::signal(SIGHUP, on_interrupt) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
}

}  // namespace retort::tools
